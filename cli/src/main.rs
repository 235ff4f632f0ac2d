//! farref: use another process's objects from the command line.

// Nothing calls the modules yet.
#![allow(dead_code, unused_imports)]

mod expr;
mod files;
mod url;

fn main() {}
