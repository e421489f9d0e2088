//! The forms of a signed payload: placeholder until the decoder lands.
