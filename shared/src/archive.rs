//! Which zips are accepted, how they are unpacked and made.
