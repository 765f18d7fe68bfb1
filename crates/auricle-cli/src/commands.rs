//! One file for each command.

pub(crate) mod action_items;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod conversations;
pub(crate) mod days;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod jobs;
pub(crate) mod memories;
pub(crate) mod models;
pub(crate) mod people;
pub(crate) mod protect;
pub(crate) mod serve;
pub(crate) mod stream;
pub(crate) mod upload;
pub(crate) mod users;
pub(crate) mod webhooks;
