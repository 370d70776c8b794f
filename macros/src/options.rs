//! `#[service(name = "...")]` and `#[rpc(...)]`.
//!
//! A wrong option is one error and is left out; the options beside it hold. So a method whose
//! timeout is misspelt is still one-way, and gets no second error for that it returns nothing.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Error, Ident, Lit, LitStr, Meta, Token, meta::ParseNestedMeta, parse::Parser,
};

use crate::{
    errors::Errors,
    shard_by::{SHARD_BY, ShardBy},
    timeout,
};

/// What `#[rpc(...)]` says of a method.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RpcOptions {
    /// The id on the wire, where it does not follow from the name.
    pub(crate) id: Option<u32>,
    /// Time that a call gets unless its caller says otherwise, in microseconds.
    pub(crate) timeout_us: Option<u32>,
    /// There is no reply.
    pub(crate) oneway: bool,
    /// A call may be made twice without harm.
    pub(crate) idempotent: bool,
    /// How urgent its calls are.
    pub(crate) class: Option<Class>,
    /// A handler is finished although its caller gave up.
    pub(crate) no_cancel: bool,
    /// Whose shard a call goes to.
    pub(crate) shard_by: Option<ShardBy>,
}

/// How urgent the calls of a method are: a variant of `ringcall::Class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Latency,
    Normal,
    Bulk,
}

/// The name that `#[service(...)]` gives, if it does.
///
/// Refused: an unknown option, one given twice, or a name that is no dotted list of identifiers.
pub(crate) fn service_name(args: TokenStream, errors: &mut Errors) -> Option<String> {
    let mut name = None;
    let parser = syn::meta::parser(|option| {
        let given = Given::read(&option)?;
        errors.extend(match given.name.as_str() {
            "name" => given.set(&mut name, NAME, parse_name),
            _ => Err(given.unknown(SERVICE_OPTIONS)),
        });
        Ok(())
    });
    let parsed = parser.parse2(args);
    errors.extend(parsed);
    name
}

impl RpcOptions {
    /// Takes `#[rpc(...)]` off a method, and reads it.
    ///
    /// Refused: an unknown option, one given twice, and a value that is not of the option's form.
    pub(crate) fn take(attributes: &mut Vec<Attribute>, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        for attribute in attributes.extract_if(.., |attribute| is_rpc(attribute)) {
            if !matches!(attribute.meta, Meta::List(_)) {
                let message = format!("expected `#[rpc(...)]`; {RPC_OPTIONS}");
                errors.push_at(&attribute, message);
                continue;
            }
            let parsed = attribute.parse_nested_meta(|option| {
                let given = Given::read(&option)?;
                errors.extend(options.set(given));
                Ok(())
            });
            errors.extend(parsed);
        }
        options
    }

    fn set(&mut self, given: Given<'_>) -> Result<(), Error> {
        match given.name.as_str() {
            "id" => given.set(&mut self.id, ID, parse_id),
            "timeout" => given.set(&mut self.timeout_us, timeout::TIMEOUT, timeout::parse),
            "class" => given.set(&mut self.class, CLASS, parse_class),
            "shard_by" => given.set(&mut self.shard_by, SHARD_BY, ShardBy::parse),
            "oneway" => given.switch_on(&mut self.oneway),
            "idempotent" => given.switch_on(&mut self.idempotent),
            "no_cancel" => given.switch_on(&mut self.no_cancel),
            _ => Err(given.unknown(RPC_OPTIONS)),
        }
    }
}

/// Whether this is ringcall's `#[rpc(...)]`.
pub(crate) fn is_rpc(attribute: &Attribute) -> bool {
    attribute.path().is_ident("rpc")
}

/// One option as it is written, up to the comma behind it.
struct Given<'a> {
    option: &'a ParseNestedMeta<'a>,
    name: String,
    /// What follows the name, without `=`.
    value: TokenStream,
    /// Whether there is a `=`.
    is_assigned: bool,
}

impl<'a> Given<'a> {
    fn read(option: &'a ParseNestedMeta<'a>) -> Result<Self, Error> {
        let input = option.input;
        let is_assigned = input.parse::<Option<Token![=]>>()?.is_some();
        let mut value = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            value.extend([input.parse::<TokenTree>()?]);
        }
        let name = option.path.get_ident().map(Ident::to_string).unwrap_or_default();
        Ok(Self { option, name, value, is_assigned })
    }

    /// Sets an option that has a value; `expected` is the error where there is none.
    fn set<T>(
        self,
        to: &mut Option<T>,
        expected: &str,
        parse: impl FnOnce(TokenStream) -> Result<T, Error>,
    ) -> Result<(), Error> {
        if to.is_some() {
            return Err(self.option.error(TWICE));
        }
        if !self.is_assigned || self.value.is_empty() {
            return Err(self.option.error(expected));
        }
        *to = Some(parse(self.value)?);
        Ok(())
    }

    /// Sets an option that is there or not.
    fn switch_on(self, to: &mut bool) -> Result<(), Error> {
        if *to {
            return Err(self.option.error(TWICE));
        }
        // It is meant, whatever else stands behind it.
        *to = self.value.to_string() != "false";
        if !self.is_assigned && self.value.is_empty() {
            return Ok(());
        }
        let message = format!("`{0}` has no value; expected `#[rpc({0})]`", self.name);
        Err(match self.value.is_empty() {
            true => self.option.error(message),
            false => Error::new_spanned(self.value, message),
        })
    }

    fn unknown(&self, options: &str) -> Error {
        self.option.error(format!("unknown option `{}`; {options}", self.name))
    }
}

fn parse_id(value: TokenStream) -> Result<u32, Error> {
    match syn::parse2::<Lit>(value.clone()) {
        Ok(Lit::Int(id)) => id.base10_parse().map_err(|_| Error::new_spanned(value, ID)),
        _ => Err(Error::new_spanned(value, ID)),
    }
}

fn parse_class(value: TokenStream) -> Result<Class, Error> {
    let class = syn::parse2::<LitStr>(value.clone()).ok();
    let class = class.and_then(|class| match class.value().as_str() {
        "latency" => Some(Class::Latency),
        "normal" => Some(Class::Normal),
        "bulk" => Some(Class::Bulk),
        _ => None,
    });
    class.ok_or_else(|| Error::new_spanned(value, CLASS))
}

fn parse_name(value: TokenStream) -> Result<String, Error> {
    match syn::parse2::<LitStr>(value.clone()) {
        Ok(name) if name.value().split('.').all(is_identifier) => Ok(name.value()),
        _ => Err(Error::new_spanned(value, NAME)),
    }
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|next| next.is_ascii_alphanumeric() || next == '_')
}

const SERVICE_OPTIONS: &str = "the only option is `name = \"acme.Kv\"`";
const RPC_OPTIONS: &str = "the options are `timeout = \"5ms\"`, `oneway`, `idempotent`, \
    `no_cancel`, `class = \"latency\"`, `shard_by = field` and `id = N`";
const TWICE: &str = "this option is given twice";
const NAME: &str = "a service's name is identifiers with dots between them; expected \
    `name = \"acme.Kv\"`";
const CLASS: &str = "a method's class is `\"latency\"`, `\"normal\"` or `\"bulk\"`; expected \
    `class = \"latency\"`";
const ID: &str = "a method's id is a number from 0 to 4294967295; expected `id = N`";

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::parse_quote;

    use super::*;

    fn named(args: TokenStream) -> Result<Option<String>, Vec<String>> {
        let mut errors = Errors::default();
        let name = service_name(args, &mut errors);
        if errors.is_empty() { Ok(name) } else { Err(errors.messages()) }
    }

    /// The options, and the errors in them.
    fn take(mut attributes: Vec<Attribute>) -> (RpcOptions, Vec<String>) {
        let mut errors = Errors::default();
        let options = RpcOptions::take(&mut attributes, &mut errors);
        assert!(attributes.is_empty());
        (options, errors.messages())
    }

    #[test]
    fn a_service_may_be_named() {
        assert_eq!(named(quote!()), Ok(None));
        assert_eq!(named(quote!(name = "acme.Kv")), Ok(Some("acme.Kv".to_owned())));
    }

    #[test]
    fn a_name_that_is_no_dotted_list_of_identifiers_is_refused() {
        for name in ["", ".", "acme.", "acme..Kv", "acme Kv", "1.Kv"] {
            assert_eq!(named(quote!(name = #name)), Err(vec![NAME.to_owned()]), "{name}");
        }
        for args in [quote!(name), quote!(name =), quote!(name("A")), quote!(name = A)] {
            assert_eq!(named(args), Err(vec![NAME.to_owned()]));
        }
        assert_eq!(named(quote!(name = "A", name = "B")), Err(vec![TWICE.to_owned()]));
        let unknown = named(quote!(title = "A")).unwrap_err();
        assert_eq!(unknown, [format!("unknown option `title`; {SERVICE_OPTIONS}")]);
    }

    #[test]
    fn all_options_are_read() {
        let (options, errors) = take(vec![
            parse_quote!(#[rpc(timeout = "5ms", idempotent, no_cancel, id = 0x10)]),
            parse_quote!(#[rpc(oneway, class = "bulk", shard_by = user.id)]),
        ]);
        let expected = RpcOptions {
            id: Some(16),
            timeout_us: Some(5_000),
            oneway: true,
            idempotent: true,
            no_cancel: true,
            class: Some(Class::Bulk),
            shard_by: Some(ShardBy::parse(quote!(user.id)).unwrap()),
        };
        assert_eq!((options, errors), (expected, vec![]));
    }

    #[test]
    fn a_class_is_one_of_three() {
        for (class, expected) in
            [("latency", Class::Latency), ("normal", Class::Normal), ("bulk", Class::Bulk)]
        {
            let (options, errors) = take(vec![parse_quote!(#[rpc(class = #class)])]);
            assert_eq!((options.class, errors), (Some(expected), vec![]));
        }
        for wrong in [quote!(class), quote!(class = "urgent"), quote!(class = latency)] {
            let (options, errors) = take(vec![parse_quote!(#[rpc(#wrong)])]);
            assert_eq!((options.class, errors), (None, vec![CLASS.to_owned()]));
        }
    }

    #[test]
    fn a_method_without_options_has_none_and_keeps_its_attributes() {
        let mut attributes = vec![parse_quote!(#[doc = "d"]), parse_quote!(#[rpc(id = 1)])];
        let mut errors = Errors::default();
        assert_eq!(RpcOptions::take(&mut attributes, &mut errors).id, Some(1));
        assert!(attributes.len() == 1 && attributes[0].path().is_ident("doc"));
        assert_eq!(RpcOptions::take(&mut attributes, &mut errors), RpcOptions::default());
        assert!(errors.is_empty());
    }

    #[test]
    fn a_wrong_option_is_one_error_and_is_left_out() {
        for (attribute, expected) in [
            (parse_quote!(#[rpc(id = 4294967296)]), ID),
            (parse_quote!(#[rpc(id = -1)]), ID),
            (parse_quote!(#[rpc(id = "1")]), ID),
            (parse_quote!(#[rpc(id = 1 + 1)]), ID),
            (parse_quote!(#[rpc(id = LOCAL)]), ID),
            (parse_quote!(#[rpc(id = )]), ID),
            (parse_quote!(#[rpc(id)]), ID),
            (parse_quote!(#[rpc(id(1))]), ID),
            (parse_quote!(#[rpc(shard_by)]), SHARD_BY),
            (parse_quote!(#[rpc(shard_by = "key")]), SHARD_BY),
            (parse_quote!(#[rpc(timeout)]), timeout::TIMEOUT),
            (parse_quote!(#[rpc(timeout = 5)]), timeout::TIMEOUT),
            (parse_quote!(#[rpc(timeout("5ms"))]), timeout::TIMEOUT),
        ] {
            let expected = (RpcOptions::default(), vec![expected.to_owned()]);
            assert_eq!(take(vec![attribute]), expected);
        }
    }

    #[test]
    fn an_option_that_there_is_not_is_named_with_those_that_there_are() {
        for (attribute, name) in [
            (parse_quote!(#[rpc(retries = 3)]), "retries"),
            (parse_quote!(#[rpc(one_way)]), "one_way"),
            (parse_quote!(#[rpc(type = "x")]), "type"),
        ] {
            let expected = format!("unknown option `{name}`; {RPC_OPTIONS}");
            assert_eq!(take(vec![attribute]), (RpcOptions::default(), vec![expected]));
        }
        let (options, errors) = take(vec![parse_quote!(#[rpc]), parse_quote!(#[rpc = "oneway"])]);
        assert_eq!(options, RpcOptions::default());
        assert_eq!(errors, vec![format!("expected `#[rpc(...)]`; {RPC_OPTIONS}"); 2]);
    }

    #[test]
    fn an_option_without_a_value_has_none() {
        for attribute in [
            parse_quote!(#[rpc(oneway = true)]),
            parse_quote!(#[rpc(oneway(true))]),
            parse_quote!(#[rpc(oneway = )]),
        ] {
            let (options, errors) = take(vec![attribute]);
            assert!(options.oneway);
            assert_eq!(errors, ["`oneway` has no value; expected `#[rpc(oneway)]`"]);
        }
        let (options, errors) = take(vec![parse_quote!(#[rpc(oneway = false)])]);
        assert_eq!((options.oneway, errors.len()), (false, 1));
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        for option in [
            quote!(id = 1),
            quote!(timeout = "1s"),
            quote!(oneway),
            quote!(idempotent),
            quote!(no_cancel),
            quote!(class = "bulk"),
            quote!(shard_by = key),
        ] {
            let (_, errors) = take(vec![parse_quote!(#[rpc(#option, #option)])]);
            assert_eq!(errors, [TWICE]);
            let (_, errors) =
                take(vec![parse_quote!(#[rpc(#option)]), parse_quote!(#[rpc(#option)])]);
            assert_eq!(errors, [TWICE]);
        }
    }

    #[test]
    fn what_is_right_holds_beside_what_is_wrong() {
        let (options, errors) =
            take(vec![parse_quote!(#[rpc(retries = 3, timeout = "5x", oneway, id = "a")])]);
        assert_eq!(options, RpcOptions { oneway: true, ..RpcOptions::default() });
        assert_eq!(errors.len(), 3);
    }
}
