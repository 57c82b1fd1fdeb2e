"""The Godwit laboratory: emulated hosts with hardware virtualization, frozen and restored copy-on-write.

Reading order: `layout` (what lies where), `kernels`, `rootfs` (what is built), `qemu` (one emulator
process), `frozen` (boot once, keep), `session` (one run), `cli`.
"""
