#include "virtio/virt_queue.h"
