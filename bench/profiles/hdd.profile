# A disk of 7200 revolutions a minute with its write cache on.
name hdd
read_bytes_per_second 150000000
write_bytes_per_second 140000000
read_seek_us 8000
write_seek_us 3000
read_latency_us 100
write_latency_us 100
flush_us 8000
