#pragma once

/// Takes the page faults of code and data before the moment that must be quick. Any thread.

namespace godwit::sys {

/// From now on the allocator keeps what is freed and grows in large steps, from one heap that
/// prefault_process() can reach. Early in main().
void keep_freed_memory() noexcept;

/// Has the kernel map the program's code and data and its heap, some megabytes. What cannot be
/// mapped faults later, as without this.
void prefault_process() noexcept;

} // namespace godwit::sys
