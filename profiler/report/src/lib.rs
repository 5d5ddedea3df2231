//! What a run says: the [`result`], computed from what was saved, and its forms: on the terminal, as a page and as
//! flame graphs ([`render`]), and for other tools ([`export`]).

// Of what is shown, no match arm stands for values to come: what is forgotten must not compile.

pub mod export;
pub mod render;
pub mod result;
