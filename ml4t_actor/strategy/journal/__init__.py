"""What a strategy must not forget, durable before an entry is sent, and what follows from it at the next start."""
