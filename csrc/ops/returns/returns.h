#pragma once
#include "core/op.h"

namespace fastdl {

/// Throws unless a discount is in [0, 1].
FASTDL_INLINE void check_discount(const char* op, const char* name, double value) {
  if (!(value >= 0 && value <= 1)) fail_value("%s: %s must be in [0, 1], got %g", op, name, value);
}

/// G_t = r_t + gamma G_t+1, where G_t+1 is 0 if step t ended its episode; G_T = last_value
///        rewards (T,N), dones (T,N), last_value (N)?  ->  returns (T,N)
/// Time goes first; N environments run side by side.  Without last_value, G_T is 0.
/// cost     2 reads, 1 write
/// numerics one fma per element, a chain over t descending; what follows a done is not touched, so
///          its NaN does not spread
/// source   Sutton & Barto, "Reinforcement learning", 2nd ed. 2018, eq. 3.9
struct DiscountedReturns {
  static constexpr const char* name = "discounted_returns";
  View rewards, dones, last_value, returns;
  double gamma = 0.99;
  double flops() const { return 2.0 * double(rewards.size()); }
  void validate() const { check_discount(name, "gamma", gamma); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("rewards", op.rewards, "T N");
    v.in("dones", op.dones, "T N", Kind::u8);
    v.opt("last_value", op.last_value, "N");
    v.out("returns", op.returns, "T N");
    v.attr("gamma", op.gamma);
  }
};

/// delta_t = r_t + gamma V_t+1 - V_t,  A_t = delta_t + gamma lam A_t+1,  returns = A + V
/// where V_t+1 and A_t+1 are 0 if step t ended its episode; V_T = last_values, A_T = 0
///        rewards (T,N), values (T,N), dones (T,N), last_values (N)  ->  advantages, returns (T,N)
/// cost     3 reads, 2 writes
/// numerics two fma and two additions per element, a chain over t descending; what follows a done
///          is not touched
/// source   Schulman et al., "High-dimensional continuous control using generalized advantage
///          estimation", 2016, eq. 11, 12 and 16
struct Gae {
  static constexpr const char* name = "gae";
  View rewards, values, dones, last_values, advantages, returns;
  double gamma = 0.99, lam = 0.95;
  double flops() const { return 6.0 * double(rewards.size()); }
  void validate() const {
    check_discount(name, "gamma", gamma);
    check_discount(name, "lam", lam);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("rewards", op.rewards, "T N");
    v.in("values", op.values, "T N");
    v.in("dones", op.dones, "T N", Kind::u8);
    v.in("last_values", op.last_values, "N");
    v.out("advantages", op.advantages, "T N");
    v.out("returns", op.returns, "T N");
    v.attr("gamma", op.gamma);
    v.attr("lam", op.lam);
  }
};

}  // namespace fastdl
