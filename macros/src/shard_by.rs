//! `#[rpc(shard_by = field)]`: the key in a request by which a call finds its shard.

use std::fmt;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Error, Expr, ExprField, Lit, spanned::Spanned};

/// The fields that make the key up, as they are written: one, or the parts of a tuple.
#[derive(Clone)]
pub(crate) struct ShardBy {
    fields: Vec<TokenStream>,
    is_tuple: bool,
}

impl ShardBy {
    /// Reads `field`, `field.of.field` or `(field, field)`.
    ///
    /// # Errors
    ///
    /// Where it is something else.
    pub(crate) fn parse(value: TokenStream) -> Result<Self, Error> {
        let wrong = |at: &dyn ToTokens| Error::new_spanned(at.to_token_stream(), SHARD_BY);
        let expr = syn::parse2::<Expr>(value.clone()).map_err(|_| wrong(&value))?;
        let (fields, is_tuple) = match &expr {
            Expr::Tuple(tuple) => (tuple.elems.iter().collect(), true),
            field => (vec![field], false),
        };
        if fields.is_empty() || fields.len() > PARTS_MAX {
            return Err(wrong(&value));
        }
        if let Some(other) = fields.iter().find(|field| !is_field(field)) {
            return Err(wrong(other));
        }
        Ok(Self { fields: fields.iter().map(ToTokens::to_token_stream).collect(), is_tuple })
    }

    /// The hash of the key in `request`, native or archived.
    pub(crate) fn hash(&self) -> TokenStream {
        let hashes = self.fields.iter().map(|field| {
            // The error of a type that is no key is at the field.
            let span = field.span().resolved_at(Span::call_site());
            quote_spanned!(span=> ::ringcall::ShardKey::shard_hash(&request.#field))
        });
        if self.is_tuple {
            return quote!(::ringcall::hash_parts([#(#hashes),*]));
        }
        quote!(#(#hashes)*)
    }
}

/// Whether it is `a`, `a.b`, `0` or `a.0`.
fn is_field(expr: &Expr) -> bool {
    match expr {
        Expr::Path(path) => path.qself.is_none() && path.path.get_ident().is_some(),
        Expr::Lit(literal) => {
            matches!(&literal.lit, Lit::Int(index) if index.suffix().is_empty())
        }
        Expr::Field(ExprField { base, .. }) => is_field(base),
        _ => false,
    }
}

impl PartialEq for ShardBy {
    fn eq(&self, other: &Self) -> bool {
        self.hash().to_string() == other.hash().to_string()
    }
}

impl Eq for ShardBy {}

impl fmt::Debug for ShardBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields.iter().map(ToString::to_string)).finish()
    }
}

/// Parts that a key can have.
const PARTS_MAX: usize = 4;

pub(crate) const SHARD_BY: &str = "a key is a field of the request, a field of a field, or up to \
    four of them in parentheses; expected `shard_by = user.id` or `shard_by = (tenant, user)`";

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: TokenStream) -> String {
        ShardBy::parse(value).unwrap().hash().to_string().replace(' ', "")
    }

    #[test]
    fn a_field_and_a_field_of_a_field_are_keys() {
        let of = |field: &str| format!("::ringcall::ShardKey::shard_hash(&request.{field})");
        assert_eq!(hash(quote!(key)), of("key"));
        assert_eq!(hash(quote!(user.id)), of("user.id"));
        assert_eq!(hash(quote!(0)), of("0"));
        assert_eq!(hash(quote!(user.0.name)), of("user.0.name"));
        let parts = [of("tenant"), of("user.id")].join(",");
        assert_eq!(hash(quote!((tenant, user.id))), format!("::ringcall::hash_parts([{parts}])"));
        let one = of("tenant");
        assert_eq!(hash(quote!((tenant,))), format!("::ringcall::hash_parts([{one}])"));
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for value in [
            quote!("key"),
            quote!(key()),
            quote!(a::b),
            quote!(&key),
            quote!(key + 1),
            quote!(1u8),
            quote!(()),
            quote!((a, b, c, d, e)),
            quote!((a, "b")),
            quote!(a b),
        ] {
            assert_eq!(ShardBy::parse(value).unwrap_err().to_string(), SHARD_BY);
        }
    }
}
