#pragma once
#include <cstdint>
#include <optional>

namespace fastdl {

/// The integer in an environment variable, or nothing if it is unset or empty; std::invalid_argument
/// unless it is in least..most.
std::optional<int64_t> environment_integer(const char* name, int64_t least, int64_t most);

}  // namespace fastdl
