#include "virtio.h"

#include "apic.h"
#include "clock.h"
#include "cpu.h"
#include "events.h"
#include "ram.h"
#include "vcpu.h"

#include <stddef.h>

enum {
    vendor_virtio = 0x1af4,
    capability_vendor = 0x09,
    capability_msix = 0x11,
    capabilities_max = 48,
    structure_common = 1,
    structure_notify = 2,
    structure_device = 4,
    // virtio 1.2, section 4.1.4.3
    common_device_feature_select = 0x00,
    common_device_feature = 0x04,
    common_driver_feature_select = 0x08,
    common_driver_feature = 0x0c,
    common_msix_config = 0x10,
    common_device_status = 0x14,
    common_queue_select = 0x16,
    common_queue_size = 0x18,
    common_queue_msix = 0x1a,
    common_queue_enable = 0x1c,
    common_queue_notify_offset = 0x1e,
    common_queue_descriptors = 0x20,
    common_queue_available = 0x28,
    common_queue_used = 0x30,
    status_acknowledge = 1,
    status_driver = 2,
    status_driver_ok = 4,
    status_features_ok = 8,
    status_needs_reset = 64,
    no_vector = 0xffff,
    used_no_notify = 1,
    lost_interrupt_us = 100000,
    reset_us_max = 1000000,
};

static uint32_t vectors_given;

static void write8(volatile uint8_t* base, uint32_t offset, uint8_t value) {
    base[offset] = value;
}

static void write16(volatile uint8_t* base, uint32_t offset, uint16_t value) {
    *(volatile uint16_t*)(base + offset) = value;
}

static void write32(volatile uint8_t* base, uint32_t offset, uint32_t value) {
    *(volatile uint32_t*)(base + offset) = value;
}

static void write64(volatile uint8_t* base, uint32_t offset, uint64_t value) {
    write32(base, offset, (uint32_t)value);
    write32(base, offset + 4, (uint32_t)(value >> 32));
}

static uint16_t read16(volatile uint8_t* base, uint32_t offset) {
    return *(volatile uint16_t*)(base + offset);
}

static uint32_t read32(volatile uint8_t* base, uint32_t offset) {
    return *(volatile uint32_t*)(base + offset);
}

static volatile uint8_t*
map_structure(struct pci_function at, uint32_t bar, uint32_t offset, uint32_t bytes) {
    uint64_t base = bar < 6 ? pci_bar(at, bar) : 0;
    if (base == 0) {
        return NULL;
    }
    ram_map_device(base + offset, bytes);
    return (volatile uint8_t*)(uintptr_t)(base + offset);
}

static void read_vendor_capability(struct virtio_device* device, uint32_t offset) {
    struct pci_function at = device->at;
    uint8_t type = pci_read8(at, offset + 3);
    if (type != structure_common && type != structure_notify && type != structure_device) {
        return;
    }
    volatile uint8_t* mapped = map_structure(
        at, pci_read8(at, offset + 4), pci_read32(at, offset + 8), pci_read32(at, offset + 12));
    if (type == structure_common && device->common == NULL) {
        device->common = mapped;
    } else if (type == structure_notify && device->notify == NULL) {
        device->notify = mapped;
        device->notify_multiplier = pci_read32(at, offset + 16);
    } else if (type == structure_device && device->device_config == NULL) {
        device->device_config = mapped;
    }
}

static void read_msix_capability(struct virtio_device* device, uint32_t offset) {
    uint32_t table = pci_read32(device->at, offset + 4);
    uint32_t entries = (pci_read16(device->at, offset + 2) & 0x7ffu) + 1;
    device->msix_table =
        (volatile uint32_t*)map_structure(device->at, table & 7, table & ~7u, entries * 16);
    if (device->msix_table != NULL) {
        device->msix_control = (uint16_t)(offset + 2);
    }
}

static void read_capabilities(struct virtio_device* device) {
    uint32_t offset = pci_read8(device->at, pci_capabilities) & 0xfcu;
    for (uint32_t i = 0; i < capabilities_max && offset != 0; ++i) {
        uint8_t id = pci_read8(device->at, offset);
        if (id == capability_vendor) {
            read_vendor_capability(device, offset);
        } else if (id == capability_msix) {
            read_msix_capability(device, offset);
        }
        offset = pci_read8(device->at, offset + 1) & 0xfcu;
    }
}

static bool is_virtio(uint32_t identity, uint32_t type) {
    // Transitional devices carry other numbers: net, block, balloon, console.
    static const uint16_t transitional[] = {0, 0x1000, 0x1001, 0x1003};
    uint32_t id = identity >> 16;
    return (identity & 0xffff) == vendor_virtio &&
           (id == 0x1040 + type || id == transitional[type]);
}

static void open_function(struct virtio_device* device, struct pci_function at) {
    device->at = at;
    pci_write16(at,
                pci_command,
                pci_read16(at, pci_command) | pci_command_memory | pci_command_master |
                    pci_command_no_intx);
    read_capabilities(device);
    device->present = device->common != NULL && device->notify != NULL;
}

bool virtio_find(struct virtio_device* device, uint32_t type, uint32_t ordinal) {
    for (uint32_t slot = 0; slot < 32; ++slot) {
        uint32_t functions = 1;
        for (uint32_t function = 0; function < functions; ++function) {
            struct pci_function at = {(uint8_t)slot, (uint8_t)function};
            uint32_t identity = pci_read32(at, pci_vendor);
            if (identity == UINT32_MAX) {
                continue;
            }
            if (function == 0 && (pci_read8(at, pci_header_type) & 0x80) != 0) {
                functions = 8;
            }
            if (is_virtio(identity, type) && ordinal-- == 0) {
                open_function(device, at);
                return device->present;
            }
        }
    }
    return false;
}

bool virtio_begin(struct virtio_device* device, uint64_t wanted) {
    volatile uint8_t* common = device->common;
    write8(common, common_device_status, 0);
    uint64_t start = tsc_read();
    while (common[common_device_status] != 0) {
        if (tsc_read() - start > clock_us_to_tsc(reset_us_max)) {
            return false;
        }
    }
    write8(common, common_device_status, status_acknowledge | status_driver);
    uint64_t offered = 0;
    for (uint32_t half = 0; half < 2; ++half) {
        write32(common, common_device_feature_select, half);
        offered |= (uint64_t)read32(common, common_device_feature) << 32 * half;
    }
    device->features = offered & (wanted | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);
    for (uint32_t half = 0; half < 2; ++half) {
        write32(common, common_driver_feature_select, half);
        write32(common, common_driver_feature, (uint32_t)(device->features >> 32 * half));
    }
    write8(common, common_device_status, status_acknowledge | status_driver | status_features_ok);
    if (device->msix_control != 0) {
        pci_write16(device->at,
                    device->msix_control,
                    pci_read16(device->at, device->msix_control) | 0x8000);
        write16(common, common_msix_config, no_vector);
    }
    return (device->features & VIRTIO_F_VERSION_1) != 0 &&
           (common[common_device_status] & status_features_ok) != 0;
}

// Entry `index` of the MSI-X table serves queue `index`; all go to the first CPU.
static void give_vector(struct virtio_device* device, struct virtio_queue* queue) {
    uint32_t vector = VECTOR_DEVICE + vectors_given;
    volatile uint32_t* entry = device->msix_table + 4 * queue->index;
    entry[0] = 0xfee00000u | vcpus[0].apic_id << 12;
    entry[1] = 0;
    entry[2] = vector;
    entry[3] = 0;
    write16(device->common, common_queue_msix, queue->index);
    if (read16(device->common, common_queue_msix) == queue->index) {
        queue->vector = vector;
        ++vectors_given;
    }
}

bool virtio_add_queue(struct virtio_device* device,
                      struct virtio_queue* queue,
                      uint16_t index,
                      uint16_t entries,
                      bool use_irq,
                      const char* name) {
    volatile uint8_t* common = device->common;
    write16(common, common_queue_select, index);
    uint16_t offered = read16(common, common_queue_size);
    queue->name = name;
    queue->index = index;
    queue->entries = offered < entries ? offered : entries;
    if (offered == 0) {
        return false;
    }
    queue->event_index = (device->features & VIRTIO_F_EVENT_IDX) != 0;
    queue->descriptors = ram_allocate(sizeof(struct virtio_descriptor) * queue->entries, 16);
    queue->available = ram_allocate(6 + 2ull * queue->entries, 4);
    queue->used = ram_allocate(6 + 8ull * queue->entries, 4);
    if (queue->descriptors == NULL || queue->available == NULL || queue->used == NULL) {
        return false;
    }
    write16(common, common_queue_size, queue->entries);
    write64(common, common_queue_descriptors, (uintptr_t)queue->descriptors);
    write64(common, common_queue_available, (uintptr_t)queue->available);
    write64(common, common_queue_used, (uintptr_t)queue->used);
    write16(common, common_queue_msix, no_vector);
    if (use_irq && device->msix_control != 0 && vectors_given < VECTOR_DEVICE_LIMIT) {
        give_vector(device, queue);
    }
    if (queue->vector == 0) {
        queue->available[0] = 1; // no interrupts, please
    }
    queue->notify =
        (volatile uint16_t*)(device->notify + read16(common, common_queue_notify_offset) *
                                                  device->notify_multiplier);
    write16(common, common_queue_enable, 1);
    return true;
}

void virtio_run(struct virtio_device* device) {
    write8(device->common,
           common_device_status,
           status_acknowledge | status_driver | status_features_ok | status_driver_ok);
}

bool virtio_needs_reset(const struct virtio_device* device) {
    return (device->common[common_device_status] & status_needs_reset) != 0;
}

void virtio_offer(struct virtio_queue* queue, uint16_t head) {
    queue->available[2 + queue->available_index % queue->entries] = head;
    ++queue->available_index;
    compiler_barrier(); // x86 keeps stores in order; the device must see the entry before the index
    queue->available[1] = queue->available_index;
}

void virtio_kick(struct virtio_queue* queue) {
    if (queue->kicked_index == queue->available_index) {
        return;
    }
    memory_barrier(); // the index must be visible before the device's wish is read
    bool wanted;
    if (queue->event_index) {
        uint16_t event = queue->used[2 + 4 * queue->entries];
        uint16_t since_event = (uint16_t)(queue->available_index - event - 1);
        wanted = since_event < (uint16_t)(queue->available_index - queue->kicked_index);
    } else {
        wanted = (queue->used[0] & used_no_notify) == 0;
    }
    queue->kicked_index = queue->available_index;
    if (wanted) {
        *queue->notify = queue->index;
    }
}

static void report_lost_interrupt(struct virtio_queue* queue) {
    ++queue->lost_interrupts;
    if (error_begin("lost-interrupt")) {
        event_text("queue", queue->name);
        event_number("interrupts", queue->interrupts_seen);
        event_end();
    }
}

// Time spent waiting. One step counts no more than a turn of the loop may take: during a pause of
// the whole machine nobody was there to raise the interrupt.
static bool waited_too_long(struct virtio_queue* queue, uint64_t now) {
    uint64_t step = queue->looked_tsc != 0 ? now - queue->looked_tsc : 0;
    uint64_t step_max = clock_us_to_tsc(virtio_look_us);
    queue->waited_tsc += step < step_max ? step : step_max;
    queue->looked_tsc = now;
    return queue->waited_tsc >= clock_us_to_tsc(lost_interrupt_us);
}

bool virtio_ready(struct virtio_queue* queue, uint64_t now) {
    // The count first: an interrupt counted here belongs to an index that is visible below.
    uint64_t interrupts = queue->vector != 0 ? irq_counts[queue->vector] : 0;
    compiler_barrier();
    bool work = queue->used[1] != queue->used_seen;
    bool interrupted = interrupts != queue->interrupts_seen;
    queue->interrupts_seen = interrupts;
    if (work && queue->vector != 0 && !interrupted) {
        if (!waited_too_long(queue, now)) {
            return false;
        }
        report_lost_interrupt(queue);
    }
    queue->looked_tsc = 0;
    queue->waited_tsc = 0;
    return work;
}

bool virtio_take(struct virtio_queue* queue, uint16_t* head, uint32_t* length) {
    if (queue->used[1] == queue->used_seen) {
        // Ask for the next interrupt, then look once more: what came in between raises none.
        if (queue->event_index && queue->vector != 0) {
            queue->available[2 + queue->entries] = queue->used_seen;
            memory_barrier();
        }
        if (queue->used[1] == queue->used_seen) {
            return false;
        }
    }
    const volatile uint32_t* entry =
        (const volatile uint32_t*)(queue->used + 2 + 4 * (queue->used_seen % queue->entries));
    *head = (uint16_t)entry[0];
    *length = entry[1];
    ++queue->used_seen;
    return true;
}
