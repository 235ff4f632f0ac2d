//! farref.
