//! One method of a service: its form is checked, and what is generated for it is read off it.

use syn::{Attribute, Error, Ident, TraitItemFn, Type, ext::IdentExt};

use crate::{
    options::{Class, RpcOptions},
    shard_by::ShardBy,
    signature::{Reader, Stream},
};

/// A method that has the expected form.
pub(crate) struct Method {
    pub(crate) name: Ident,
    /// Doc comments and conditions.
    pub(crate) attributes: Vec<Attribute>,
    /// `Kv.get`.
    pub(crate) wire_name: String,
    pub(crate) id: u32,
    /// The name of the constant that holds the id.
    pub(crate) constant: Ident,
    /// `Q` of `Request<'_, Q>`, as written.
    pub(crate) request: Type,
    pub(crate) kind: Kind,
    /// Time that a call gets unless its caller says otherwise, in microseconds; zero is for ever.
    pub(crate) timeout_us: u32,
    pub(crate) idempotent: bool,
    pub(crate) no_cancel: bool,
    pub(crate) class: Option<Class>,
    /// Whose shard a call goes to.
    pub(crate) shard_by: Option<ShardBy>,
}

/// What a call consists of beside its request.
pub(crate) enum Kind {
    OneWay,
    Answered(Box<Answer>),
}

/// How a call is answered.
pub(crate) struct Answer {
    /// `R` of `Result<R, E>`, as written.
    pub(crate) reply: Type,
    /// `E` of `Result<R, E>`, as written.
    pub(crate) error: Type,
    /// What the method takes behind the request, in that order: at most one of each kind.
    pub(crate) streams: Vec<Stream<Type>>,
}

impl Method {
    /// Reads a method of the service named `service`.
    ///
    /// # Errors
    ///
    /// The first thing about the method that is not of the form
    /// `async fn name(&self, cx: &Context, request: Request<'_, Q>) -> Result<R, E>`, or of that
    /// which its options and streams give it.
    pub(crate) fn new(
        method: &TraitItemFn,
        options: &RpcOptions,
        service: &str,
    ) -> Result<Self, Error> {
        let signature = &method.sig;
        let reader = Reader::new(signature, options.oneway);
        let name = signature.ident.unraw().to_string();
        if let Some(body) = &method.default {
            return Err(reader.wrong(body, "a service's method has no body in the trait"));
        }
        reader.check_qualifiers()?;
        let parameters = reader.parameters()?;
        let kind = match reader.result()? {
            None => Kind::OneWay,
            Some((reply, error)) => Kind::Answered(Box::new(Answer {
                reply: reply.clone(),
                error: error.clone(),
                streams: parameters.streams.into_iter().map(Stream::cloned).collect(),
            })),
        };
        if let (Kind::Answered(answer), Some(_)) = (&kind, &options.shard_by)
            && !answer.streams.is_empty()
        {
            return Err(Error::new(signature.ident.span(), SHARDED_STREAM));
        }
        // `METHODS` is also the constant of a method named `Methods`.
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) || name.starts_with(RESERVED_PREFIX) {
            let message =
                format!("`{name}` is a name that the generated client needs; choose another");
            return Err(Error::new(signature.ident.span(), message));
        }
        let wire_name = format!("{service}.{name}");
        Ok(Self {
            attributes: method.attrs.clone(),
            id: options.id.unwrap_or_else(|| crate::id::of(&wire_name)),
            constant: Ident::new(&name.to_ascii_uppercase(), signature.ident.span()),
            name: signature.ident.clone(),
            wire_name,
            request: parameters.request.clone(),
            kind,
            timeout_us: options.timeout_us.unwrap_or(0),
            idempotent: options.idempotent,
            no_cancel: options.no_cancel,
            class: options.class,
            shard_by: options.shard_by.clone(),
        })
    }
}

impl Kind {
    /// The variant of `ringcall::MethodKind`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::OneWay => "OneWay",
            Self::Answered(answer) => match (answer.source(), answer.sink()) {
                (None, None) => "Unary",
                (None, Some(_)) => "ServerStream",
                (Some(_), None) => "ClientStream",
                (Some(_), Some(_)) => "TwoWay",
            },
        }
    }

    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::OneWay => None,
            Self::Answered(answer) => Some(answer),
        }
    }
}

impl Answer {
    /// The items that the caller sends.
    pub(crate) fn source(&self) -> Option<&Type> {
        self.streams.iter().find_map(|stream| match stream {
            Stream::Source(item) => Some(item),
            Stream::Sink(_) => None,
        })
    }

    /// The items that the handler sends.
    pub(crate) fn sink(&self) -> Option<&Type> {
        self.streams.iter().find_map(|stream| match stream {
            Stream::Sink(item) => Some(item),
            Stream::Source(_) => None,
        })
    }
}

/// Functions and constants of every client.
const RESERVED: [&str; 5] = ["client", "connect", "methods", "on", "with"];
/// With which the names of the constants begin that hold what is known of a method.
const RESERVED_PREFIX: &str = "__";

const SHARDED_STREAM: &str = "a method with streams has no `shard_by`: items travel between the \
    caller and the shard that its connection is on; ask for the owner in a method without streams";

#[cfg(test)]
mod tests {
    use quote::ToTokens;
    use syn::parse_quote;

    use super::*;

    fn read(method: TraitItemFn) -> Result<Method, Error> {
        Method::new(&method, &RpcOptions::default(), "Kv")
    }

    fn text(tokens: impl ToTokens) -> String {
        tokens.to_token_stream().to_string().replace(' ', "")
    }

    /// The kind's name, the source's and the sink's item.
    fn kind(method: TraitItemFn) -> (&'static str, Option<String>, Option<String>) {
        let kind = read(method).unwrap().kind;
        let answer = kind.answer().unwrap();
        (kind.name(), answer.source().map(text), answer.sink().map(text))
    }

    #[test]
    fn a_method_of_the_expected_form_is_read() {
        let method = read(parse_quote! {
            async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
        });
        let method = method.unwrap();
        assert_eq!(method.wire_name, "Kv.get");
        assert_eq!(method.id, crate::id::of("Kv.get"));
        assert_eq!(method.constant, "GET");
        assert_eq!(text(method.request), "Get");
        assert_eq!(method.kind.name(), "Unary");
        let answer = method.kind.answer().unwrap();
        assert_eq!((text(&answer.reply), text(&answer.error)), ("Got".into(), "Status".into()));
        assert_eq!((method.timeout_us, method.idempotent, method.no_cancel), (0, false, false));
    }

    #[test]
    fn paths_lifetimes_raw_names_and_other_errors_are_accepted() {
        let method = read(parse_quote! {
            async fn r#type<'a>(
                &'a self,
                _: &'a ringcall::Context,
                request: ringcall::Request<'a, v1::Blob<'a>>,
            ) -> std::result::Result<v1::Blob<'a>, errors::Denied<'a>>;
        });
        let method = method.unwrap();
        assert_eq!(method.wire_name, "Kv.type");
        assert_eq!(method.constant, "TYPE");
        assert_eq!(text(&method.request), "v1::Blob<'a>");
        let answer = method.kind.answer().unwrap();
        assert_eq!(text(&answer.reply), "v1::Blob<'a>");
        assert_eq!(text(&answer.error), "errors::Denied<'a>");
    }

    #[test]
    fn options_are_the_methods() {
        let method: TraitItemFn = parse_quote! {
            async fn note(&self, cx: &Context, request: Request<'_, Line>);
        };
        let options = RpcOptions {
            id: Some(7),
            timeout_us: Some(5_000),
            oneway: true,
            idempotent: true,
            no_cancel: true,
            class: Some(Class::Bulk),
            shard_by: None,
        };
        let method = Method::new(&method, &options, "Kv").unwrap();
        assert_eq!((method.id, method.timeout_us), (7, 5_000));
        assert!(method.idempotent && method.no_cancel);
        assert_eq!(method.class, Some(Class::Bulk));
        assert_eq!(method.kind.name(), "OneWay");
        assert!(method.kind.answer().is_none());
    }

    #[test]
    fn streams_make_the_kind_in_either_order() {
        let some = |name: &str| Some(name.to_owned());
        let sink = kind(parse_quote! {
            async fn scan(&self, cx: &Context, q: Request<'_, Q>, o: Sink<'_, O>) -> Result<R, E>;
        });
        assert_eq!(sink, ("ServerStream", None, some("O")));
        let source = kind(parse_quote! {
            async fn put(&self, cx: &Context, q: Request<'_, Q>, i: Source<I>) -> Result<R, E>;
        });
        assert_eq!(source, ("ClientStream", some("I"), None));
        let source_first: TraitItemFn = parse_quote! {
            async fn talk(
                &self,
                cx: &Context,
                request: Request<'_, Q>,
                items: ringcall::Source<v1::I>,
                replies: ringcall::Sink<'_, O<'_>>,
            ) -> Result<R, E>;
        };
        let mut sink_first = source_first.clone();
        let replies = sink_first.sig.inputs.pop().unwrap().into_value();
        sink_first.sig.inputs.insert(3, replies);
        for (method, first) in [(source_first, "Source"), (sink_first, "Sink")] {
            let expected = ("TwoWay", some("v1::I"), some("O<'_>"));
            assert_eq!(kind(method.clone()), expected);
            let method = read(method).unwrap();
            let streams = &method.kind.answer().unwrap().streams;
            assert_eq!(matches!(streams[0], Stream::Source(_)), first == "Source");
        }
    }

    #[test]
    fn a_name_that_the_client_needs_is_refused() {
        for name in ["client", "connect", "methods", "on", "with", "r#on", "Methods", "__info_get"]
        {
            let name: Ident = syn::parse_str(name).unwrap();
            let method = read(parse_quote! {
                async fn #name(&self, cx: &Context, request: Request<'_, Q>) -> Result<R, E>;
            });
            let message = method.err().unwrap().to_string();
            assert!(message.ends_with("is a name that the generated client needs; choose another"));
        }
    }

    #[test]
    fn a_body_is_refused() {
        let method = read(parse_quote! {
            async fn get(&self, cx: &Context, request: Request<'_, Q>) -> Result<R, E> { todo() }
        });
        let message = method.err().unwrap().to_string();
        assert!(message.starts_with("a service's method has no body in the trait; expected"));
    }
}
