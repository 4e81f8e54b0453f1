#pragma once
// Record and replay.  A program is a flat list of (kernel, op) pairs; ops are plain data, so
// recording one is copying it.  `finish` turns the recording into what is replayed: calls whose
// results nobody reads are dropped, and memory that nobody else refers to is laid out anew in one
// block.  What changes from call to call is bound before each run: slots (inputs) and results.
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "core/backend.h"
#include "core/contract.h"
#include "core/memory_plan.h"
#include "core/slice.h"

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
  explicit Program(std::vector<View> slots) : slots_(std::move(slots)) {}

  // ---- recording --------------------------------------------------------------------------------

  /// Appends a call that is about to run for real.
  template <class Op>
  void record(const Op& op) {
    static_assert(std::is_trivially_copyable_v<Op> && alignof(Op) <= alignof(uint64_t));
    const size_t offset = main_.ops.size() * sizeof(uint64_t);
    main_.ops.resize(main_.ops.size() + (sizeof(Op) + 7) / 8);
    std::memcpy(main_.at(offset), &op, sizeof op);
    entry<Op>.locate(*this, offset, &op);
    calls_.push_back({&entry<Op>, offset, {}, 0, 0, {}, false});
    const Scratch s = scratch_of(op);
    if (s.shared_bytes > scratch_.shared_bytes) scratch_.shared_bytes = s.shared_bytes;
    if (s.thread_bytes > scratch_.thread_bytes) scratch_.thread_bytes = s.thread_bytes;
  }
  /// Notes where in the user's code the last call was made.
  void annotate(std::string where) { calls_.back().where = std::move(where); }
  /// Saves what the last call, which is still to run, will overwrite, for `undo`.  `fresh`: memory
  /// that was made for this call; what it writes there need not be saved.
  void save_outputs(const std::vector<MemoryBlock>& fresh);
  /// Puts everything back that the recorded calls have written.
  void undo();
  /// Ends the recording without `finish`: all memory stays where it is.
  void keep_changes() { undo_.clear(); }

  /// An owned block that a call reads before any has written it: its values came from elsewhere.
  struct Frozen {
    int block;
    std::string where;
  };
  /// Prepares the replay.  `owned`: memory that only this program refers to; `results`: arrays that
  /// every run hands out.  If any block is frozen, all is undone and the program is of no use.
  std::vector<Frozen> finish(const std::vector<MemoryBlock>& owned, std::vector<View> results);

  // ---- replay -----------------------------------------------------------------------------------

  class Run;
  /// Binds the slots to `inputs` and runs every call; `outputs` are filled with the results.  All
  /// checks come first: a wrong count, dtype, shape or value throws and nothing has been written.
  /// (An index that the program itself computes can only be checked when it is there.)
  void run(std::vector<View> inputs, std::vector<void*> outputs = {});
  /// What a run costs, in bytes moved or equivalent (see run_chunks).
  double work() const;

  /// Arrays whose rows the slots receive, and what else changes from step to step.
  struct Steps {
    std::vector<View> sources;       // one for each slot: (N, ...) with the slot's rows
    std::vector<double> scales;      // factor for a u8 source of a float slot
    const int64_t* order = nullptr;  // rows of the first step, then of the second, ...
    int64_t first = 0;               // without an order: the first row
    int64_t count = 0;               // steps
    std::vector<void*> outputs;      // one for each result: (count, ...)
    struct Schedule {
      double* target;
      const double* values;  // one for each step
    };
    std::vector<Schedule> schedules;
    bool (*go_on)(void*) = nullptr;  // asked after every step
    void* context = nullptr;
  };
  /// Runs one step after the other; returns how many were done.
  int64_t run_steps(const Steps& steps);

  const std::vector<View>& slots() const { return slots_; }
  const std::vector<View>& results() const { return results_; }
  bool writes_slot(size_t i) const { return i < written_.size() && written_[i]; }
  /// The memory outside of the program that its calls use, and that which they write.
  std::vector<MemoryBlock> fixed_memory() const;
  struct Written {
    MemoryBlock memory;
    std::string by;  // kernel and line of the first call that does
  };
  std::vector<Written> written() const;

  struct CallInfo {
    const char* name;
    std::string arguments, where;
    int64_t bytes;
    double flops, seconds;  // seconds: of the fastest timed run, 0 before it
    int64_t timed;
    bool joined;  // in a chain, timed with the call before
  };
  std::vector<CallInfo> calls() const;
  size_t size() const { return calls_.size(); }

  struct Memory {
    int64_t temporaries, without_reuse, fixed, slots, results, scratch;
  };
  Memory memory() const;

 private:
  /// Consecutive element-wise calls that run block by block.
  struct Chain {
    int first, end;  // calls
    int64_t size, bytes;
    int locals = 0;
  };
  /// What a program needs to know of an op's type.
  struct Entry {
    const char* name;
    void (*run)(const Backend&, const void*, const Workspace&);
    void (*validate)(const void*);  // null if the op checks no values
    CallInfo (*info)(const void*);
    void (*locate)(Program&, size_t offset, const void*);
    // Of element-wise ops, else null: the number of elements, 0 if this call is no plain loop over
    // them; and a run on some of them.
    int64_t (*chain_size)(const void*);
    void (*run_slice)(const Backend&, const void*, const Slice&);
  };
  template <class Op>
  static const Entry entry;

  struct Call {
    const Entry* entry;
    size_t offset;
    std::string where;
    double seconds;
    int64_t timed;
    std::vector<Local> locals;
    bool late;  // checks values that earlier calls compute, so it is checked when its turn comes
  };
  /// One array argument of a recorded call.  Later its pointer is base of (home, index) + delta.
  struct Use {
    size_t view;  // offset of the View in the ops
    int call;
    Role role;
    bool optional, counts;  // counts: holds integers
    MemoryBlock memory;     // what it covered when it was recorded
    int64_t shift;          // from the start of `memory` to its first element
    Home home = Home::fixed;
    int index = 0;
    int64_t delta = 0;
  };
  /// What one thread replays on: the ops with their pointers, and memory for the temporaries.
  struct Instance {
    std::vector<uint64_t> ops;
    AlignedMemory memory;
    char* at(size_t offset) { return reinterpret_cast<char*>(ops.data()) + offset; }
    const char* at(size_t offset) const {
      return reinterpret_cast<const char*>(ops.data()) + offset;
    }
    void bind(const Use& u, const void* base) {
      const char* p = static_cast<const char*>(base) + u.delta;
      std::memcpy(at(u.view), &p, sizeof p);
    }
  };
  /// The right to run: on the main instance, or if a pure program is running already on a spare one.
  class Lease {
   public:
    explicit Lease(Program& p);
    ~Lease();
    Lease(const Lease&) = delete;
    Instance& instance() { return spare_ ? *spare_ : p_.main_; }

   private:
    Program& p_;
    std::unique_lock<std::mutex> lock_;
    std::unique_ptr<Instance> spare_;
  };

  /// Remembers where inside the recorded op the views are.
  struct Locate : Visitor<Locate> {
    Program& p;
    size_t offset;
    const char* base;
    Locate(Program& p, size_t offset, const char* base) : p(p), offset(offset), base(base) {}
    void array(const char*, const View& v, const ArraySpec& spec) {
      if (v) p.add_use(v, offset + size_t(reinterpret_cast<const char*>(&v) - base), spec);
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

  void add_use(const View& v, size_t offset, const ArraySpec& spec);
  void fuse(const std::vector<MemoryBlock>& owned);
  void locate_all();
  int only_writer(const Use& reader, const std::vector<MemoryBlock>& owned) const;
  bool may_move_up(int first, int second) const;
  bool absorb(int first, int second);
  void settle_homes(const std::vector<MemoryBlock>& owned, std::vector<Frozen>* frozen);
  Use place_of(const View& result) const;
  void adopt_results();
  void leave_out(Use& u);
  void drop_dead_calls();
  void remove_calls(const std::vector<bool>& live);
  void find_late_checks();
  void find_chains();
  bool may_join(int first, int call, int64_t size) const;
  void keep_in_blocks(Chain& chain);
  void run_chain(const Chain& chain, Instance& i, const Workspace& ws) const;
  void place_temporaries();
  void prepare(Instance& instance) const;
  std::unique_ptr<Instance> take_spare();
  void check_inputs(const std::vector<View>& inputs) const;
  void check_apart(const View& input, size_t i) const;
  void bind(Instance& i, const std::vector<View>& inputs, const std::vector<void*>& outputs) const;
  void validate(Instance& i) const;
  void execute(Instance& i);
  const char* location(const Instance& i, const Use& u) const;
  void copy_results(const Instance& i, const std::vector<View>& inputs,
                    const std::vector<void*>& outputs) const;

  std::vector<View> slots_, results_;
  std::vector<Use> result_uses_;  // where each result is after a run, if it is not bound
  std::vector<bool> written_;     // by slot: a recorded call writes it
  std::vector<Call> calls_;
  std::vector<Use> uses_;
  std::vector<Lifetime> temporaries_;
  std::vector<Chain> chains_;
  std::vector<Written> outside_;  // written() of a finished program
  Scratch scratch_;
  bool pure_ = false;  // writes only temporaries and results, so several runs may overlap
  int64_t runs_ = 0;

  struct Saved {
    MemoryBlock memory;
    std::unique_ptr<AlignedMemory> values;
  };
  std::vector<Saved> undo_;

  Instance main_;
  std::mutex running_;  // main_, and whatever a program that is not pure writes
  std::mutex spares_lock_;
  std::vector<std::unique_ptr<Instance>> spares_;
};

/// A run in two parts: everything that can fail, then the calls.
class Program::Run {
 public:
  Run(Program& p, std::vector<View> inputs, std::vector<void*> outputs);
  void go();

 private:
  Program& p_;
  std::vector<View> inputs_;
  std::vector<void*> outputs_;
  Lease lease_;
};

inline void Program::run(std::vector<View> inputs, std::vector<void*> outputs) {
  Run(*this, std::move(inputs), std::move(outputs)).go();
}

template <class Op>
const Program::Entry Program::entry = {
    Op::name,
    [](const Backend& b, const void* op, const Workspace& ws) {
      kernel_of<Op>(b)(*static_cast<const Op*>(op), ws);
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
      return CallInfo{Op::name, d.text, "", traffic_bytes(op), flops, 0, 0, false};
    },
    [](Program& p, size_t offset, const void* op) {
      Locate locate{p, offset, static_cast<const char*>(op)};
      Op::visit(*static_cast<const Op*>(op), locate);
    },
    [] {
      int64_t (*f)(const void*) = nullptr;
      if constexpr (is_elementwise<Op>())
        f = [](const void* op) {
          Elements e;
          Op::visit(*static_cast<const Op*>(op), e);
          return e.size;
        };
      return f;
    }(),
    [] {
      void (*f)(const Backend&, const void*, const Slice&) = nullptr;
      if constexpr (is_elementwise<Op>())
        f = [](const Backend& b, const void* op, const Slice& slice) {
          fastdl::run_slice(b, *static_cast<const Op*>(op), slice);
        };
      return f;
    }(),
};

/// The program that this thread is recording, or null.
Program* recording();
/// Starts recording into `p` on this thread; null stops.
void set_recording(Program* p);

}  // namespace fastdl
