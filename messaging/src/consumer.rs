//! Receives messages, with offsets that somebody else keeps.
