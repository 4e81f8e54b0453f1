#pragma once
// What ThreadSanitizer is told of fibers.  Kernels are instrumented and the emulator is not, so that
// each access of a kernel counts as one of its fiber, and only barriers order them.  The build
// defines FASTDL_TSAN for the emulator's own files; without it all of this is nothing.
#if defined(FASTDL_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace fastdl::emulator::tsan {

#if defined(FASTDL_TSAN)

inline void* current() { return __tsan_get_current_fiber(); }
inline void* create() { return __tsan_create_fiber(0); }
inline void destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
/// A switch alone orders nothing.
inline void switch_to(void* fiber) {
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
/// What happened before a release is seen after an acquire of the same token.
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }
/// Writes of the emulator itself, for no thread of the kernel.
struct Unseen {
  Unseen() { AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  ~Unseen() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__); }
};

#else

inline void* current() { return nullptr; }
inline void* create() { return nullptr; }
inline void destroy(void*) {}
inline void switch_to(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
struct Unseen {
  Unseen() {}
};

#endif

}  // namespace fastdl::emulator::tsan
