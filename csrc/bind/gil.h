#pragma once
#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastdl {

/// Lets other threads of Python run while it lives.
///
/// When the interpreter ends, Python before 3.14 unwinds the stack of a daemon thread that comes back
/// for the GIL.  Destructors of C++ end the process then, which pybind11's own class does too.  Such a
/// thread waits here for the end of the process instead, as it does from 3.14 on.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace fastdl
