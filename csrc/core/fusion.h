#pragma once
// Two neighbours in a program as one call.  A rule belongs to the op that absorbs the other:
//
//   /// What rides along, and why no bit changes.
//   inline bool absorb(First& first, const Second& second);    // in ops/<first>/<first>.fusions.h
//
// It is asked when `second` reads an array that `first` writes and nobody else uses; it changes
// `first` to do the work of both, or returns false.  csrc/fusions.def lists the pairs.
#include <vector>

namespace fastdl {

struct FusionRule {
  const char *first, *second;  // Op::name of both, by identity
  bool (*absorb)(void* first, const void* second);
};

const std::vector<FusionRule>& fusion_rules();

}  // namespace fastdl
