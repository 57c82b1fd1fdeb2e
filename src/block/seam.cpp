#include "block/block_device.h"
