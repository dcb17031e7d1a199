"""What the end-to-end tests stand on: programs, raw sockets, scripted peers."""
