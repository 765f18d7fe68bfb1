//! auricle-testkit
