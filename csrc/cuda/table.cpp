// The table of the CUDA kernels; null where an op has none yet.  Its declarations are weak, so the
// linker fills the rows of those .cuda.cu files that exist: a new one needs no list.
#include "core/backend.h"

#define FASTDL_STRING_(x) #x
#define FASTDL_STRING(x) FASTDL_STRING_(x)

namespace fastdl::FASTDL_ISA {

#define FASTDL_OP(Op, op) __attribute__((weak)) void op(const Op&, const Workspace&);
#include "ops.def"
#undef FASTDL_OP

extern const Backend table;
const Backend table = {
    FASTDL_STRING(FASTDL_ISA),
    true,
#define FASTDL_OP(Op, op) &op,
#include "ops.def"
#undef FASTDL_OP
    nullptr,
    nullptr,
};

}  // namespace fastdl::FASTDL_ISA
