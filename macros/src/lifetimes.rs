//! Lifetimes in a message's type, replaced for the place where the type is written.
//!
//! A method names its messages with lifetimes of its own (`Blob<'a>`), which do not exist
//! outside its signature. The server and the client write `Blob<'_>` where the compiler finds
//! the lifetime itself, `Blob<'call>` where a client's call borrows it, and `Blob<'static>` where
//! there is nothing to borrow from.

use proc_macro2::Span;
use syn::{
    Lifetime, Type, TypeReference,
    visit::Visit,
    visit_mut::{self, VisitMut},
};

/// `ty` with each lifetime replaced by `'_`.
pub(crate) fn elided(ty: &Type) -> Type {
    fold(ty, "'_")
}

/// `ty` with each lifetime replaced by `'static`, also where a reference has none written.
pub(crate) fn statics(ty: &Type) -> Type {
    fold(ty, "'static")
}

/// `ty` with each lifetime replaced by `'call`, also where a reference has none written: for what
/// is borrowed for as long as a call takes.
pub(crate) fn of_call(ty: &Type) -> Type {
    fold(ty, "'call")
}

/// The lifetimes that are written in `ty`.
pub(crate) fn named(ty: &Type) -> Vec<Lifetime> {
    struct Find(Vec<Lifetime>);
    impl<'ast> Visit<'ast> for Find {
        fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
            self.0.push(lifetime.clone());
        }
    }
    let mut find = Find(Vec::new());
    find.visit_type(ty);
    find.0
}

/// Writes `'static` for each reference in `ty` without a lifetime; says whether there was one.
pub(crate) fn complete(ty: &mut Type) -> bool {
    let mut fold = Fold { to: "'static", named: false, changed: false };
    fold.visit_type_mut(ty);
    fold.changed
}

fn fold(ty: &Type, to: &'static str) -> Type {
    let mut ty = ty.clone();
    Fold { to, named: true, changed: false }.visit_type_mut(&mut ty);
    ty
}

struct Fold {
    to: &'static str,
    /// Whether lifetimes that are written are replaced too.
    named: bool,
    changed: bool,
}

impl VisitMut for Fold {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if self.named {
            *lifetime = Lifetime::new(self.to, lifetime.span());
            self.changed = true;
        }
    }

    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        visit_mut::visit_type_reference_mut(self, reference);
        if reference.lifetime.is_none() && self.to != "'_" {
            let span: Span = reference.and_token.span;
            reference.lifetime = Some(Lifetime::new(self.to, span));
            self.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;
    use syn::parse_quote;

    use super::*;

    fn text(ty: &Type) -> String {
        ty.to_token_stream().to_string().replace(' ', "")
    }

    #[test]
    fn lifetimes_of_a_method_become_elided_or_static() {
        let ty: Type = parse_quote!(Page<'a, Vec<Row<'b>>>);
        assert_eq!(text(&elided(&ty)), "Page<'_,Vec<Row<'_>>>");
        assert_eq!(text(&statics(&ty)), "Page<'static,Vec<Row<'static>>>");
    }

    #[test]
    fn a_reference_without_a_lifetime_gets_one_where_none_is_elided() {
        let ty: Type = parse_quote!((&str, &'a [u8]));
        assert_eq!(text(&statics(&ty)), "(&'staticstr,&'static[u8])");
        assert_eq!(text(&of_call(&ty)), "(&'callstr,&'call[u8])");
        assert_eq!(text(&elided(&ty)), "(&str,&'_[u8])");
    }

    #[test]
    fn a_type_without_lifetimes_stays_as_it_is() {
        let ty: Type = parse_quote!(store::v2::Get);
        assert_eq!(text(&elided(&ty)), "store::v2::Get");
        assert_eq!(text(&statics(&ty)), "store::v2::Get");
    }

    #[test]
    fn lifetimes_are_found_wherever_they_stand() {
        let names = |ty: Type| {
            let found = named(&ty);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(parse_quote!(&'a str)), ["'a"]);
        assert_eq!(names(parse_quote!(Vec<Option<&'a [Row<'b>]>>)), ["'a", "'b"]);
        assert!(names(parse_quote!(Vec<Option<String>>)).is_empty());
    }

    #[test]
    fn only_missing_lifetimes_are_completed() {
        let mut ty: Type = parse_quote!((&str, &'a str));
        assert!(complete(&mut ty));
        assert_eq!(text(&ty), "(&'staticstr,&'astr)");
        assert!(!complete(&mut parse_quote!(&'a str)));
    }
}
