//! What may stand in a message, judged from how its type is written.
//!
//! A name is judged by its last segment, since a macro cannot know what it stands for. What is
//! not refused here meets the `Field` bound, where the compiler judges the type itself.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Error, GenericArgument, Ident, Path, PathArguments, Type,
    visit::{self, Visit},
};

/// Refuses a field of the message `owner` that can never travel, at the part that cannot.
///
/// # Errors
///
/// The first such part, with the reason and what to use instead.
pub(crate) fn check(ty: &Type, owner: &Ident) -> Result<(), Error> {
    let mut check = Check { owner, found: None };
    check.visit_type(ty);
    check.found.map_or(Ok(()), Err)
}

/// How rkyv archives `ty` where it borrows: `InlineAsBox` for a reference, inside `Map` for one
/// in an `Option`, `Vec` or array. `None` where `ty` needs no help.
///
/// # Errors
///
/// A reference in a place where rkyv has no way to archive it.
pub(crate) fn with_of(ty: &Type) -> Result<Option<TokenStream>, Error> {
    match plain(ty) {
        Type::Reference(reference) => match nested_reference(&reference.elem) {
            Some(nested) => Err(Error::new_spanned(nested, NESTED_REFERENCE)),
            None => Ok(Some(quote!(::ringcall::rkyv::with::InlineAsBox))),
        },
        Type::Array(array) => Ok(with_of(&array.elem)?.map(mapped)),
        Type::Path(path) => match container(&path.path) {
            Some((name, inner)) if name == "Option" || name == "Vec" => {
                Ok(with_of(inner)?.map(mapped))
            }
            _ => no_reference_in(ty),
        },
        _ => no_reference_in(ty),
    }
}

/// The types in `ty` that only the compiler can judge: names that are not ringcall's own.
pub(crate) fn unknown(ty: &Type) -> Vec<Type> {
    struct Find(Vec<Type>);
    impl<'ast> Visit<'ast> for Find {
        fn visit_type(&mut self, ty: &'ast Type) {
            match ty {
                Type::Path(path) if path.qself.is_none() && is_field_name(&path.path) => {
                    visit::visit_type(self, ty);
                }
                Type::Array(_)
                | Type::Group(_)
                | Type::Paren(_)
                | Type::Reference(_)
                | Type::Slice(_)
                | Type::Tuple(_) => visit::visit_type(self, ty),
                _ => self.0.push(ty.clone()),
            }
        }
    }
    let mut find = Find(Vec::new());
    find.visit_type(ty);
    find.0
}

struct Check<'a> {
    owner: &'a Ident,
    found: Option<Error>,
}

impl Check<'_> {
    fn refuse(&mut self, at: impl ToTokens, message: impl std::fmt::Display) {
        if self.found.is_none() {
            self.found = Some(Error::new_spanned(at, message));
        }
    }
}

impl<'ast> Visit<'ast> for Check<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Path(path) => {
                if is_owner(&path.path, self.owner) {
                    self.refuse(ty, recursive(self.owner));
                } else if let Some(message) = path.path.segments.last().and_then(|last| {
                    let name = last.ident.to_string();
                    reason(&name).map(|reason| format!("`{name}` cannot travel: {reason}"))
                }) {
                    self.refuse(ty, message);
                }
            }
            Type::Reference(reference) if reference.mutability.is_some() => {
                self.refuse(ty, "`&mut` cannot travel: a message is only read; use `&'a T`");
            }
            Type::Ptr(_) => self.refuse(ty, POINTER),
            Type::BareFn(_) => self.refuse(ty, FUNCTION),
            Type::TraitObject(_) | Type::ImplTrait(_) => self.refuse(ty, TRAIT),
            Type::Never(_) => self.refuse(ty, "`!` has no value to send"),
            _ => {}
        }
        // The first mistake in a field is the one to report, and nothing inside it.
        if self.found.is_none() {
            visit::visit_type(self, ty);
        }
    }

    // An array's length is no part of what travels.
    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}

/// Why a type of this name cannot be in a message, and what can.
fn reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "Rc" | "Arc" | "Weak" => {
            "archives of shared pointers can defeat validation; use the value itself, `Box<T>` \
             or `&'a T`"
        }
        "HashMap" | "BTreeMap" => {
            "archives of maps can defeat validation; use `Vec<(K, V)>`, sorted by key if it is \
             searched"
        }
        "HashSet" | "BTreeSet" => {
            "archives of sets can defeat validation; use `Vec<T>`, sorted if it is searched"
        }
        "usize" => "its width differs between machines; use `u32` or `u64`",
        "isize" => "its width differs between machines; use `i32` or `i64`",
        "Cell" | "RefCell" | "OnceCell" | "UnsafeCell" | "Mutex" | "RwLock" => {
            "a message is read in the buffer that it arrived in and does not change; use the \
             plain value"
        }
        _ if name.starts_with("NonZero") => {
            "archives of types with niches can defeat validation; use the plain integer and \
             check it in the handler"
        }
        _ => return None,
    })
}

fn recursive(owner: &Ident) -> String {
    format!(
        "`{owner}` contains itself: how deep a message nests must have a bound; use a flat list \
         whose items refer to each other by index (`Vec<Node>`, with `u32` indices in `Node`)"
    )
}

/// Whether `path` is the message itself: its bare name, `Self` or `self::Name`. A longer path
/// (`v1::Get` in `Get`) is another type.
fn is_owner(path: &Path, owner: &Ident) -> bool {
    let mut segments = path.segments.iter().map(|segment| &segment.ident);
    match (segments.next(), segments.next(), segments.next()) {
        (Some(only), None, _) => path.leading_colon.is_none() && (only == owner || only == "Self"),
        (Some(first), Some(second), None) => first == "self" && second == owner,
        _ => false,
    }
}

fn is_field_name(path: &Path) -> bool {
    path.segments.last().is_some_and(|last| FIELD_NAMES.iter().any(|name| last.ident == name))
}

/// A path with exactly one type argument: its name and the argument.
fn container(path: &Path) -> Option<(&Ident, &Type)> {
    let last = path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match (arguments.args.first(), arguments.args.len()) {
        (Some(GenericArgument::Type(inner)), 1) => Some((&last.ident, inner)),
        _ => None,
    }
}

/// Takes parentheses off a type, and the invisible ones that `macro_rules!` puts around it.
fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        _ => ty,
    }
}

fn mapped(inner: TokenStream) -> TokenStream {
    quote!(::ringcall::rkyv::with::Map<#inner>)
}

fn no_reference_in(ty: &Type) -> Result<Option<TokenStream>, Error> {
    match nested_reference(ty) {
        Some(nested) => Err(Error::new_spanned(nested, NESTED_REFERENCE)),
        None => Ok(None),
    }
}

fn nested_reference(ty: &Type) -> Option<&Type> {
    struct Find<'ast>(Option<&'ast Type>);
    impl<'ast> Visit<'ast> for Find<'ast> {
        fn visit_type(&mut self, ty: &'ast Type) {
            match ty {
                Type::Reference(_) if self.0.is_none() => self.0 = Some(ty),
                _ => visit::visit_type(self, ty),
            }
        }
    }
    let mut find = Find(None);
    find.visit_type(ty);
    find.0
}

/// Names for which `Field` is implemented if it is for their arguments.
const FIELD_NAMES: [&str; 19] = [
    "bool", "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "f32", "f64",
    "char", "String", "str", "Vec", "Option", "Box",
];

const NESTED_REFERENCE: &str = "a reference may stand alone or in `Option`, `Vec` and arrays, and \
    not here; give what it belongs to a `#[message]` struct of its own, or own the value";
const POINTER: &str = "a raw pointer cannot travel: it means nothing on another machine; use the \
    value itself, `Box<T>` or `&'a T`";
const FUNCTION: &str = "a function cannot travel: it means nothing on another machine; use an enum \
    that names what to do";
const TRAIT: &str = "a trait object cannot travel: both ends must know the layout; use an enum \
    with a variant for each type";

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn with(ty: Type) -> Option<String> {
        let with = with_of(&ty).unwrap().map(|with| with.to_string().replace(' ', ""));
        with.map(|with| with.replace("::ringcall::rkyv::with::", ""))
    }

    fn refused(ty: Type) -> String {
        check(&ty, &parse_quote!(Owner)).unwrap_err().to_string()
    }

    #[test]
    fn references_are_archived_as_boxes() {
        assert_eq!(with(parse_quote!(&'a str)).as_deref(), Some("InlineAsBox"));
        assert_eq!(with(parse_quote!((&'a [Row<'a>]))).as_deref(), Some("InlineAsBox"));
        assert_eq!(with(parse_quote!(Option<&'a str>)).as_deref(), Some("Map<InlineAsBox>"));
        assert_eq!(with(parse_quote!([&'a str; 2])).as_deref(), Some("Map<InlineAsBox>"));
        assert_eq!(
            with(parse_quote!(std::vec::Vec<Option<&'a [u8]>>)).as_deref(),
            Some("Map<Map<InlineAsBox>>")
        );
    }

    #[test]
    fn types_that_own_need_no_help() {
        assert_eq!(with(parse_quote!(u64)), None);
        assert_eq!(with(parse_quote!(Option<Vec<String>>)), None);
        assert_eq!(with(parse_quote!(Option<Row<'a>>)), None);
        assert_eq!(with(parse_quote!((u8, Box<str>))), None);
    }

    #[test]
    fn a_reference_that_rkyv_cannot_archive_is_refused() {
        assert!(with_of(&parse_quote!(&'a [&'a str])).is_err());
        assert!(with_of(&parse_quote!(Box<&'a str>)).is_err());
        assert!(with_of(&parse_quote!((u8, &'a str))).is_err());
        assert!(with_of(&parse_quote!(Option<(u8, &'a str)>)).is_err());
    }

    #[test]
    fn a_type_that_cannot_travel_is_refused_wherever_it_stands() {
        assert!(refused(parse_quote!(std::rc::Rc<str>)).starts_with("`Rc` cannot travel"));
        assert!(refused(parse_quote!(Option<Vec<usize>>)).contains("use `u32` or `u64`"));
        assert!(refused(parse_quote!((u8, NonZeroU8))).starts_with("`NonZeroU8` cannot travel"));
        assert!(refused(parse_quote!([HashMap<u8, u8>; 3])).contains("Vec<(K, V)>"));
        assert!(refused(parse_quote!(*const u8)).contains("raw pointer"));
        assert!(refused(parse_quote!(fn(u8) -> u8)).contains("function"));
        assert!(refused(parse_quote!(&'a mut u8)).contains("`&mut`"));
        assert!(refused(parse_quote!(Box<dyn Send>)).contains("trait object"));
        assert!(check(&parse_quote!([u8; size_of::<usize>()]), &parse_quote!(Owner)).is_ok());
    }

    #[test]
    fn a_message_that_contains_itself_is_refused() {
        assert!(refused(parse_quote!(Vec<Owner>)).contains("contains itself"));
        assert!(refused(parse_quote!(Option<Box<Self>>)).contains("contains itself"));
        assert!(refused(parse_quote!(Box<self::Owner>)).contains("contains itself"));
        assert!(refused(parse_quote!(&'a [Owner<'a>])).contains("contains itself"));
        assert!(check(&parse_quote!(v1::Owner), &parse_quote!(Owner)).is_ok());
    }

    #[test]
    fn what_only_the_compiler_can_judge_is_found() {
        let names = |ty: Type| {
            let found = unknown(&ty);
            found.iter().map(|ty| ty.to_token_stream().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(parse_quote!(Vec<Option<(u8, v1::Row)>>)), ["v1 :: Row"]);
        assert_eq!(names(parse_quote!(&'a [Row<'a>])), ["Row < 'a >"]);
        assert!(names(parse_quote!(Option<Box<[u8; 4]>>)).is_empty());
    }
}
