#pragma once
// Record and replay.  A program is a flat list of (kernel, op) pairs; ops are plain data, so
// recording one is copying it.  Arrays that change from call to call are slots: a recorded pointer
// into a slot's memory follows the slot when it is bound to another array.
#include <cstring>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "core/backend.h"
#include "core/contract.h"

namespace fastdl {

/// Scratch memory of this thread, grown to fit; throws std::bad_alloc.
Workspace workspace_for(const Scratch& need);

template <class Op>
Scratch scratch_of(const Op& op) {
  if constexpr (requires { op.scratch(); }) return op.scratch();
  return {};
}

class Program {
 public:
  /// The slots are arrays that nobody else uses, so that a pointer belongs to one slot at most.
  explicit Program(std::vector<View> slots)
      : slots_(std::move(slots)), written_(slots_.size(), false) {}

  template <class Op>
  void record(const Op& op) {
    static_assert(std::is_trivially_copyable_v<Op> && alignof(Op) <= alignof(uint64_t));
    const size_t offset = ops_.size() * sizeof(uint64_t);
    ops_.resize(ops_.size() + (sizeof(Op) + 7) / 8);
    std::memcpy(at(offset), &op, sizeof op);
    Locate locate{*this, offset, reinterpret_cast<const char*>(&op)};
    Op::visit(op, locate);
    calls_.push_back({&entry<Op>, offset});
    const Scratch s = scratch_of(op);
    if (s.shared_bytes > scratch_.shared_bytes) scratch_.shared_bytes = s.shared_bytes;
    if (s.thread_bytes > scratch_.thread_bytes) scratch_.thread_bytes = s.thread_bytes;
  }

  /// Binds the slots to `inputs` and runs every call.  All checks come first: a wrong count, dtype,
  /// shape or value throws and nothing has been written.
  void run(const std::vector<View>& inputs);

  struct CallInfo {
    const char* name;
    std::string arguments;
    int64_t bytes;
    double flops;
  };
  std::vector<CallInfo> calls() const;
  size_t size() const { return calls_.size(); }

 private:
  /// What a program needs to know of an op's type.
  struct Entry {
    const char* name;
    void (*run)(const Backend&, const void*, const Workspace&);
    void (*validate)(const void*);  // null if the op checks no values
    CallInfo (*info)(const void*);
  };
  template <class Op>
  static const Entry entry;

  struct Call {
    const Entry* entry;
    size_t offset;
  };
  struct Use {
    size_t offset;  // of the data pointer, in ops_
    int slot;
    int64_t delta;  // bytes from the start of the slot
  };
  /// Remembers where inside the recorded op the pointers into slots are.
  struct Locate : Visitor<Locate> {
    Program& p;
    size_t offset;
    const char* base;
    Locate(Program& p, size_t offset, const char* base) : p(p), offset(offset), base(base) {}
    void array(const char*, const View& v, const ArraySpec& spec) {
      p.locate(v, offset + static_cast<size_t>(reinterpret_cast<const char*>(&v.data) - base),
               spec.role != Role::in);
    }
    template <class T>
    void attr(const char*, const T&) {}
  };
  struct Describe : Visitor<Describe> {
    std::string text;
    void array(const char* name, const View& v, const ArraySpec&) {
      if (v) text += (text.empty() ? "" : ", ") + std::string(name) + " " + describe(v);
    }
    template <class T>
    void attr(const char*, const T&) {}
  };

  char* at(size_t offset) { return reinterpret_cast<char*>(ops_.data()) + offset; }
  const char* at(size_t offset) const {
    return reinterpret_cast<const char*>(ops_.data()) + offset;
  }
  void locate(const View& v, size_t offset, bool written);
  void check_inputs(const std::vector<View>& inputs) const;
  void bind(const std::vector<View>& inputs);

  std::mutex running_;
  std::vector<View> slots_;
  std::vector<bool> written_;  // by slot: a recorded call writes it
  std::vector<uint64_t> ops_;
  std::vector<Call> calls_;
  std::vector<Use> uses_;
  Scratch scratch_;
};

template <class Op>
const Program::Entry Program::entry = {
    Op::name,
    [](const Backend& b, const void* op, const Workspace& ws) {
      KernelOf<Op>::in(b)(*static_cast<const Op*>(op), ws);
    },
    [] {
      void (*f)(const void*) = nullptr;
      if constexpr (requires(const Op& op) { op.validate(); })
        f = [](const void* op) { static_cast<const Op*>(op)->validate(); };
      return f;
    }(),
    [](const void* p) {
      const Op& op = *static_cast<const Op*>(p);
      Describe d;
      Op::visit(op, d);
      double flops = 0;
      if constexpr (requires { op.flops(); }) flops = op.flops();
      return CallInfo{Op::name, d.text, traffic_bytes(op), flops};
    },
};

/// The program that this thread is recording, or null.
Program* recording();
/// Starts recording into `p` on this thread; null stops.
void set_recording(Program* p);

}  // namespace fastdl
