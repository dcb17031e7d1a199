"""What the container tests stand on: namespaces, podman, images, Debian roots."""
