//! auricle-wire
