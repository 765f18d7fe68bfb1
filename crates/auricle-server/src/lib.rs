//! auricle-server
