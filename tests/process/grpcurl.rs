//! (grpcurl)
