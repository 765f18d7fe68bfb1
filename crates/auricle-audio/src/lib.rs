//! auricle-audio
