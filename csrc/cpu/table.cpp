// Compiled once per ISA: the table of this ISA's kernels.
#include "core/backend.h"
#include "cpu/ceilings.h"

#define FASTDL_STRING_(x) #x
#define FASTDL_STRING(x) FASTDL_STRING_(x)

namespace fastdl::FASTDL_ISA {

#define FASTDL_OP(Op, op) void op(const Op&, const Workspace&);
#include "ops.def"
#undef FASTDL_OP

extern const Backend table;
const Backend table = {
    FASTDL_STRING(FASTDL_ISA),
    false,
#define FASTDL_OP(Op, op) &op,
#include "ops.def"
#undef FASTDL_OP
    &fma_in_registers,
    &copy_floats,
};

}  // namespace fastdl::FASTDL_ISA
