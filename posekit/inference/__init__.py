"""A model file on this machine: sessions, devices, crops in and points out."""
