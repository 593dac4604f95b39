//! Real processes on loopback: killed at every named point, loaded, measured, and called with grpcurl.

mod demo;
mod grpcurl;
mod load;
mod restart;
mod world;
