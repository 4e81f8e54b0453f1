#pragma once
// A population: programs of one shape on data of their own, shared out over the threads.  Each
// program runs on one thread, so it gives the bits that it gives alone.
#include <functional>
#include <vector>

#include "core/program.h"

namespace fastdl {

/// Runs all programs; member i is bound to inputs[i] and outputs[i].  All checks come first.
void run_replicas(const std::vector<Program*>& programs,
                  const std::vector<std::vector<View>>& inputs,
                  const std::vector<std::vector<void*>>& outputs);

/// Runs the steps of every program; all take equally many.  If one of them throws, the others still
/// finish, and the exception comes out.
void run_replicas(const std::vector<Program*>& programs, const std::vector<Program::Steps>& steps);

/// Throws std::invalid_argument if a program uses memory that another one writes.
void check_apart(const std::vector<Program*>& programs);

}  // namespace fastdl
