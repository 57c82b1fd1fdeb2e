# A SATA flash disk: quick, even, and used up by writes.
name ssd
read_bytes_per_second 500000000
write_bytes_per_second 400000000
read_operation_us 11
write_operation_us 13
read_latency_us 90
write_latency_us 40
flush_us 500
wear_thousandths 1000
