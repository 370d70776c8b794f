//! The parts of a method's signature: each is checked, and the types in it are found.
//!
//! The macro sees tokens: a `Request`, `Source`, `Sink`, `Context` or `Result` is known by the
//! last name of its path.

use std::fmt::Display;

use quote::ToTokens;
use syn::{
    Error, FnArg, GenericArgument, GenericParam, Path, PathArguments, PathSegment, Receiver,
    ReturnType, Signature, Type, TypePath,
};

/// The parameters of a method, behind `&self` and the context.
pub(crate) struct Parameters<'a> {
    /// `Q` of `Request<'_, Q>`.
    pub(crate) request: &'a Type,
    /// At most one of each kind, in the order in which the method takes them.
    pub(crate) streams: Vec<Stream<&'a Type>>,
}

/// A stream that a method takes, by the type of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stream<T> {
    /// `I` of `Source<I>`: from the caller to the handler.
    Source(T),
    /// `O` of `Sink<'_, O>`: from the handler to the caller.
    Sink(T),
}

impl<T: Clone> Stream<&T> {
    pub(crate) fn cloned(self) -> Stream<T> {
        match self {
            Self::Source(item) => Stream::Source(item.clone()),
            Self::Sink(item) => Stream::Sink(item.clone()),
        }
    }
}

/// A signature, with the form that it is expected to have.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    signature: &'a Signature,
    oneway: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(signature: &'a Signature, oneway: bool) -> Self {
        Self { signature, oneway }
    }

    /// # Errors
    ///
    /// Where the method is not `async`, or is something else beside it.
    pub(crate) fn check_qualifiers(self) -> Result<(), Error> {
        let signature = self.signature;
        if let Some(token) = &signature.constness {
            return Err(self.wrong(token, "a service's method is not `const`"));
        }
        if let Some(token) = &signature.unsafety {
            return Err(self.wrong(token, "a service's method is not `unsafe`"));
        }
        if let Some(token) = &signature.abi {
            return Err(self.wrong(token, "a service's method has no ABI of its own"));
        }
        for parameter in &signature.generics.params {
            if !matches!(parameter, GenericParam::Lifetime(_)) {
                return Err(self.wrong(parameter, METHOD_PARAMETER));
            }
        }
        match signature.asyncness {
            Some(_) => Ok(()),
            None => Err(self.wrong(signature.fn_token, "a service's method is `async`")),
        }
    }

    /// # Errors
    ///
    /// At the first parameter that is not `&self`, `&Context`, `Request<'_, Q>` or, in a method
    /// that replies, one of each stream.
    pub(crate) fn parameters(self) -> Result<Parameters<'a>, Error> {
        let name = &self.signature.ident;
        let mut inputs = self.signature.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(receiver)) if is_plain_self(receiver) => {}
            Some(FnArg::Receiver(receiver)) => {
                return Err(self.wrong(receiver, "a service is called through `&self`"));
            }
            Some(FnArg::Typed(_)) | None => {
                return Err(self.wrong(name, "a service's method takes `&self`"));
            }
        }
        match inputs.next() {
            Some(FnArg::Typed(context)) if is_context(&context.ty) => {}
            Some(other) => {
                return Err(self.wrong(other, "the first parameter is the call's context"));
            }
            None => return Err(self.wrong(name, "the method takes no context and no request")),
        }
        let request = match inputs.next() {
            Some(FnArg::Typed(argument)) => self.request(&argument.ty)?,
            Some(FnArg::Receiver(receiver)) => {
                return Err(self.wrong(receiver, "`self` is the first parameter"));
            }
            None => return Err(self.wrong(name, "the method takes no request")),
        };
        let mut streams = Vec::new();
        for input in inputs {
            let stream = self.stream(input, &streams)?;
            streams.push(stream);
        }
        Ok(Parameters { request, streams })
    }

    /// `R` and `E` of `Result<R, E>`; nothing for a one-way method.
    ///
    /// # Errors
    ///
    /// Where a one-way method returns something, or another one does not return such a result.
    pub(crate) fn result(self) -> Result<Option<(&'a Type, &'a Type)>, Error> {
        let output = match (&self.signature.output, self.oneway) {
            (ReturnType::Default, true) => return Ok(None),
            (ReturnType::Type(_, output), true) => {
                return Err(self.wrong(output, "a one-way method returns nothing"));
            }
            (ReturnType::Default, false) => {
                return Err(self.wrong(&self.signature.ident, NO_RESULT));
            }
            (ReturnType::Type(_, output), false) => output,
        };
        match last_arguments(output, "Result").as_deref() {
            Some([GenericArgument::Type(reply), GenericArgument::Type(error)]) => {
                self.check_message(reply)?;
                self.check_concrete(error, "an error")?;
                Ok(Some((reply, error)))
            }
            _ => Err(self.wrong(output, "a method returns a reply or an error")),
        }
    }

    /// `Q` of `Request<'_, Q>` or `Request<Q>`.
    fn request(self, ty: &'a Type) -> Result<&'a Type, Error> {
        match message_of(ty, "Request") {
            Some(message) => self.check_message(message).map(|()| message),
            None => Err(self.wrong(ty, "the second parameter is the request")),
        }
    }

    /// A parameter behind the request: a stream, of another kind than those `before` it.
    fn stream(
        self,
        input: &'a FnArg,
        before: &[Stream<&'a Type>],
    ) -> Result<Stream<&'a Type>, Error> {
        let ty = match input {
            FnArg::Typed(argument) => &*argument.ty,
            FnArg::Receiver(receiver) => {
                return Err(self.wrong(receiver, "`self` is the first parameter"));
            }
        };
        if self.oneway {
            return Err(self.wrong(ty, "a one-way method takes one request and no streams"));
        }
        let source = message_of(ty, "Source").map(Stream::Source);
        let stream = source.or_else(|| message_of(ty, "Sink").map(Stream::Sink));
        let Some(stream) = stream else {
            return Err(self.wrong(ty, "behind the request a method takes streams only"));
        };
        let same =
            |other: &Stream<_>| std::mem::discriminant(other) == std::mem::discriminant(&stream);
        if before.iter().any(same) {
            return Err(self.wrong(ty, "a method takes at most one stream in each direction"));
        }
        let (Stream::Source(item) | Stream::Sink(item)) = stream;
        self.check_message(item).map(|()| stream)
    }

    fn check_message(self, ty: &Type) -> Result<(), Error> {
        self.check_concrete(ty, "a message")
    }

    /// Refuses types that have no name outside the method's signature.
    fn check_concrete(self, ty: &Type, what: &str) -> Result<(), Error> {
        match ty {
            Type::ImplTrait(_) | Type::TraitObject(_) | Type::Infer(_) | Type::Macro(_) => {
                Err(self.wrong(ty, format!("{what} is a concrete type")))
            }
            Type::Path(path) if starts_with_self(path) => {
                Err(self.wrong(ty, format!("{what} does not depend on who serves it")))
            }
            _ => Ok(()),
        }
    }

    /// An error at `at` that says what is wrong and what the method should look like.
    pub(crate) fn wrong(self, at: impl ToTokens, what: impl Display) -> Error {
        let name = &self.signature.ident;
        // With streams in it where something stands in their place.
        let has_streams = self.signature.inputs.len() > 3;
        let (option, streams, output) = match (self.oneway, has_streams) {
            (true, _) => ("#[rpc(oneway)] ", "", ""),
            (false, false) => ("", "", " -> Result<R, E>"),
            (false, true) => ("", ", source: Source<I>, sink: Sink<'_, O>", " -> Result<R, E>"),
        };
        let either = if has_streams && !self.oneway { " with one stream or both" } else { "" };
        Error::new_spanned(
            at,
            format!(
                "{what}; expected `{option}async fn {name}(&self, cx: &Context, request: \
                 Request<'_, Q>{streams}){output}`{either}"
            ),
        )
    }
}

/// Whether the receiver is `&self`, with or without a lifetime.
fn is_plain_self(receiver: &Receiver) -> bool {
    receiver.reference.is_some() && receiver.mutability.is_none() && receiver.colon_token.is_none()
}

fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            reference.mutability.is_none()
                && last_segment(&reference.elem).is_some_and(|last| last.ident == "Context")
        }
        _ => false,
    }
}

fn starts_with_self(path: &TypePath) -> bool {
    let of_trait = path.qself.as_ref().is_some_and(|qself| match &*qself.ty {
        Type::Path(inner) => starts_with_self(inner),
        _ => false,
    });
    of_trait || path.path.segments.first().is_some_and(|first| first.ident == "Self")
}

/// `T` of `Name<'_, T>` or `Name<T>`. Whether the type has a lifetime is left to the compiler.
fn message_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    match last_arguments(ty, name)?.as_slice() {
        [GenericArgument::Lifetime(_), GenericArgument::Type(message)]
        | [GenericArgument::Type(message)] => Some(message),
        _ => None,
    }
}

/// The generic arguments of a path that ends in `name`.
fn last_arguments<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a GenericArgument>> {
    let last = last_segment(ty).filter(|last| last.ident == name)?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments.args.iter().collect()),
        _ => None,
    }
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(TypePath { qself: None, path: Path { segments, .. } }) => segments.last(),
        _ => None,
    }
}

const NO_RESULT: &str = "the method returns no result, and is not `#[rpc(oneway)]`";
const METHOD_PARAMETER: &str = "a method has no parameters but lifetimes: the layouts of its \
    messages, which both ends compare, are of concrete types";

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refused(signature: Signature, oneway: bool) -> String {
        let reader = Reader::new(&signature, oneway);
        let read = reader.check_qualifiers().and_then(|()| reader.parameters());
        read.and_then(|_| reader.result().map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_named_with_the_expected_form() {
        let missing =
            refused(parse_quote!(async fn get(&self, cx: &Context) -> Result<R, E>), false);
        assert_eq!(
            missing,
            "the method takes no request; expected `async fn get(&self, cx: &Context, request: \
             Request<'_, Q>) -> Result<R, E>`"
        );
        let signature =
            parse_quote!(fn get(&self, cx: &Context, q: Request<'_, Q>) -> Result<R, E>);
        assert!(refused(signature, false).starts_with("a service's method is `async`"));
        let signature = parse_quote!(async fn get(&self, cx: &Context, q: Request<'_, Q>));
        assert!(refused(signature, false).starts_with(NO_RESULT));
    }

    #[test]
    fn a_one_way_method_returns_nothing_and_takes_no_streams() {
        let form = "; expected `#[rpc(oneway)] async fn note(&self, cx: &Context, request: \
                    Request<'_, Q>)`";
        let returns = "a one-way method returns nothing";
        for signature in [
            parse_quote!(async fn note(&self, cx: &Context, q: Request<'_, Q>) -> Result<R, E>),
            parse_quote!(async fn note(&self, cx: &Context, q: Request<'_, Q>) -> ()),
        ] {
            assert_eq!(refused(signature, true), format!("{returns}{form}"));
        }
        let streams = "a one-way method takes one request and no streams";
        for signature in [
            parse_quote!(async fn note(&self, cx: &Context, q: Request<'_, Q>, i: Source<I>)),
            parse_quote!(async fn note(&self, cx: &Context, q: Request<'_, Q>, o: Sink<'_, O>)),
        ] {
            assert_eq!(refused(signature, true), format!("{streams}{form}"));
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_behind_the_request() {
        let form = "; expected `async fn f(&self, cx: &Context, request: Request<'_, Q>, source: \
                    Source<I>, sink: Sink<'_, O>) -> Result<R, E>` with one stream or both";
        let none = "behind the request a method takes streams only";
        let twice = "a method takes at most one stream in each direction";
        for (ty, what) in [
            (parse_quote!(u8), none),
            (parse_quote!(Request<'_, Q>), none),
            (parse_quote!(Source), none),
            (parse_quote!(Source<I, J>), none),
            (parse_quote!(&Source<I>), none),
            (parse_quote!(&mut Sink<'_, O>), none),
            (parse_quote!(Sink<'_>), none),
            (parse_quote!(Sink<'_, O, P>), none),
        ] {
            let ty: Type = ty;
            let signature = parse_quote! {
                async fn f(&self, cx: &Context, q: Request<'_, Q>, x: #ty) -> Result<R, E>
            };
            assert_eq!(refused(signature, false), format!("{what}{form}"));
        }
        for ty in [parse_quote!(Source<I>), parse_quote!(Sink<'_, O>)] {
            let ty: Type = ty;
            let signature = parse_quote! {
                async fn f(&self, cx: &Context, q: Request<'_, Q>, x: #ty, y: #ty) -> Result<R, E>
            };
            assert_eq!(refused(signature, false), format!("{twice}{form}"));
        }
    }

    #[test]
    fn a_result_names_its_reply_and_its_error() {
        for output in [
            parse_quote!(R),
            parse_quote!(Result<R>),
            parse_quote!(Option<R>),
            parse_quote!(Result<R, E, F>),
            parse_quote!((R, E)),
        ] {
            let output: Type = output;
            let signature =
                parse_quote!(async fn f(&self, cx: &Context, q: Request<'_, Q>) -> #output);
            let message = refused(signature, false);
            assert!(message.starts_with("a method returns a reply or an error; expected"));
        }
    }

    #[test]
    fn a_type_that_has_no_name_outside_the_signature_is_refused() {
        let places: [fn(&Type) -> Signature; 5] = [
            |t| parse_quote!(async fn f(&self, cx: &Context, q: Request<'_, #t>) -> Result<R, E>),
            |t| parse_quote!(async fn f(&self, cx: &Context, q: Request<'_, Q>) -> Result<#t, E>),
            |t| parse_quote!(async fn f(&self, cx: &Context, q: Request<'_, Q>) -> Result<R, #t>),
            |t| {
                parse_quote! {
                    async fn f(&self, cx: &Context, q: Request<'_, Q>, i: Source<#t>)
                    -> Result<R, E>
                }
            },
            |t| {
                parse_quote! {
                    async fn f(&self, cx: &Context, q: Request<'_, Q>, o: Sink<'_, #t>)
                    -> Result<R, E>
                }
            },
        ];
        for (ty, why) in [
            (parse_quote!(Self), "does not depend on who serves it"),
            (parse_quote!(Self::Item), "does not depend on who serves it"),
            (parse_quote!(<Self as Kv>::Item), "does not depend on who serves it"),
            (parse_quote!(impl Message), "is a concrete type"),
            (parse_quote!(dyn Message), "is a concrete type"),
            (parse_quote!(_), "is a concrete type"),
            (parse_quote!(a_type!()), "is a concrete type"),
        ] {
            for (index, place) in places.iter().enumerate() {
                let what = if index == 2 { "an error" } else { "a message" };
                let message = refused(place(&ty), false);
                assert!(message.starts_with(&format!("{what} {why}; expected")), "{message}");
            }
        }
    }
}
