#pragma once

/// An interrupt line for tests that remembers its level and its rises. One thread.

#include "bus/bus.h"

namespace godwit::machine::platform {

class FakeIrqLine final : public bus::IrqLine {
  public:
    void set(bool asserted) noexcept override {
        rises += asserted && !level ? 1 : 0;
        level = asserted;
    }
    bool level = false;
    int rises = 0;
};

} // namespace godwit::machine::platform
