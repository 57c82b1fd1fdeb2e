// Keeps one idle virtual machine with one vCPU open on a lab host, for as long as the host lives.
//
// Creating the first machine and destroying the last one makes KVM switch static keys, and the
// kernel then rewrites its own code, in places as hot as the scheduler. QEMU before 8.1 can lose
// such a write against a translation of the same code running on another emulated CPU (fixed there
// by "accel/tcg: Always lock pages before translation"); that CPU then executes an old int3 for
// ever. With a machine always open the keys stay on and nothing is rewritten.
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (machine < 0 || ioctl(machine, KVM_CREATE_IRQCHIP, 0) < 0 ||
        // Its local APIC is never enabled, which holds KVM's key for "some APIC is disabled".
        ioctl(machine, KVM_CREATE_VCPU, 0) < 0) {
        perror("keeper: /dev/kvm");
        return 1;
    }
    for (;;) {
        pause();
    }
}
