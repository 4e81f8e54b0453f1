#include "core/environment.h"

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastdl {

std::optional<int64_t> environment_integer(const char* name, int64_t least, int64_t most) {
  const char* text = std::getenv(name);
  if (!text || !*text) return {};
  char* end;
  errno = 0;
  const int64_t n = std::strtoll(text, &end, 10);
  if (*end || errno || n < least || n > most)
    throw std::invalid_argument(std::string(name) + " must be an integer in " +
                                std::to_string(least) + ".." + std::to_string(most) + ", got '" +
                                text + "'");
  return n;
}

}  // namespace fastdl
