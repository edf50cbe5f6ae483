"""Queue: the doorbell. arq's keys, its serializer and the ring."""
