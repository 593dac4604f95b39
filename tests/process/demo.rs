//! (the demonstration; see below)
