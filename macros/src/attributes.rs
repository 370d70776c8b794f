//! The attributes of the user's items that generated items repeat.

use syn::Attribute;

/// `#[cfg(...)]`: what is generated for an item exists where the item does.
pub(crate) fn cfgs(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"))
}

/// Doc comments.
pub(crate) fn docs(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("doc"))
}

/// `#[deprecated]`: a client's function is, where the method is.
pub(crate) fn deprecated(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("deprecated"))
}
