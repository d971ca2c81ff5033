//! primetrade
fn main(){}
