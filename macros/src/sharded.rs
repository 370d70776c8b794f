//! The client of a sharded service that `#[service]` writes: a function for each method without
//! items, whose call goes to the shard that owns its key.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;

use crate::{
    attributes::{cfgs, deprecated, docs},
    lifetimes,
    method::{Kind, Method},
    service::Service,
};

/// The sharded client of a service; none where no method has a key. Its constants are those of the
/// other client.
pub(crate) fn generate(service: &Service<'_>) -> Option<TokenStream> {
    let Service { visibility, item, client, cfgs, methods, .. } = service;
    if methods.iter().all(|method| method.shard_by.is_none()) {
        return None;
    }
    let sharded = format_ident!("{}Shards", item.unraw());
    let about = format!(
        "Calls a [`{item}`] of which each shard of a server has a part: it keeps a connection to \
         each."
    );
    let calls = methods.iter().filter_map(|method| call(service, method));
    Some(quote! {
        #[doc = #about]
        ///
        /// A call goes to the shard that owns its key; one of a method without a key goes to each
        /// in turn. It has the methods without streams. Clones share the connections.
        #(#cfgs)*
        #[derive(Clone)]
        #[allow(dead_code)]
        #visibility struct #sharded(::ringcall::ShardedClient);

        #(#cfgs)*
        #[allow(dead_code)]
        impl #sharded {
            /// Connects to every shard of a server that has the service's methods.
            ///
            /// # Errors
            ///
            /// Where no address answers, or the server has these methods with other layouts.
            pub async fn connect(
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                Self::with(&::core::default::Default::default(), address).await
            }

            /// Connects as [`connect`](Self::connect) does, with limits other than the default.
            ///
            /// # Errors
            ///
            /// As for [`connect`](Self::connect).
            pub async fn with(
                config: &::ringcall::ClientConfig,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                let connected =
                    ::ringcall::ShardedClient::connect_with(config, address, #client::METHODS);
                connected.await.map(Self)
            }

            /// The connections.
            pub fn client(&self) -> &::ringcall::ShardedClient {
                &self.0
            }

            #(#calls)*
        }
    })
}

/// The function that calls a method; none where items travel with its calls.
fn call(service: &Service<'_>, method: &Method) -> Option<TokenStream> {
    let (client, name) = (&service.client, &method.name);
    let request = lifetimes::of_call(&method.request);
    let info = format_ident!("__INFO_{}", method.constant);
    let key = match &method.shard_by {
        Some(shard_by) => {
            let hash = shard_by.hash();
            quote!(::core::option::Option::Some(::ringcall::RoutingKey::from_hash(#hash)))
        }
        None => quote!(::core::option::Option::None),
    };
    let (output, make) = match &method.kind {
        Kind::OneWay => (
            quote! {
                impl ::core::future::Future<
                    Output = ::core::result::Result<(), ::ringcall::Status>
                >
            },
            quote!(self.0.one_way::<#request>(&#client::#info, #key, request)),
        ),
        Kind::Answered(answer) if answer.streams.is_empty() => {
            let reply = lifetimes::statics(&answer.reply);
            let error = lifetimes::statics(&answer.error);
            let types = quote!(#request, #reply, #error);
            (
                quote!(::ringcall::ShardedCall<'call, #types>),
                quote!(self.0.call::<#types>(&#client::#info, #key, request)),
            )
        }
        Kind::Answered(_) => return None,
    };
    let cfgs = cfgs(&method.attributes);
    let deprecated = deprecated(&method.attributes);
    let docs: Vec<_> = docs(&method.attributes).collect();
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let about = format!(" Calls `{}`.", method.wire_name);
    Some(quote! {
        #(#docs)*
        #blank
        #[doc = #about]
        #(#cfgs)*
        #(#deprecated)*
        #[inline]
        pub fn #name<'call>(&'call self, request: &'call #request) -> #output {
            #make
        }
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use crate::service;

    fn expanded(methods: proc_macro2::TokenStream) -> String {
        let service = quote!(trait Kv { #methods });
        service::expand(proc_macro2::TokenStream::new(), service).to_string().replace(' ', "")
    }

    #[test]
    fn a_trait_with_a_key_has_a_sharded_client() {
        let expanded = expanded(quote! {
            #[rpc(shard_by = key)]
            async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
            async fn len(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Len, Status>;
            #[rpc(oneway, shard_by = key)]
            async fn note(&self, cx: &Context, request: Request<'_, Line>);
        });
        assert!(expanded.contains("structKvShards(::ringcall::ShardedClient)"), "{expanded}");
        let hash = "::ringcall::ShardKey::shard_hash(&request.key)";
        let key =
            format!("::core::option::Option::Some(::ringcall::RoutingKey::from_hash({hash}))");
        let get = format!("self.0.call::<Get,Got,Status>(&KvClient::__INFO_GET,{key},request)");
        assert!(expanded.contains(&get), "{expanded}");
        let len = "self.0.call::<Nothing,Len,Status>(&KvClient::__INFO_LEN,\
                   ::core::option::Option::None,request)";
        assert!(expanded.contains(len), "{expanded}");
        let note = format!("self.0.one_way::<Line>(&KvClient::__INFO_NOTE,{key},request)");
        assert!(expanded.contains(&note), "{expanded}");
        assert!(expanded.contains(&format!("ifcall.goes_elsewhere(||{hash}){{return;}}")));
    }

    #[test]
    fn a_trait_without_a_key_has_none() {
        let expanded = expanded(quote! {
            async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
        });
        assert!(!expanded.contains("Shards") && !expanded.contains("goes_elsewhere"), "{expanded}");
    }

    #[test]
    fn a_stream_has_no_key() {
        let expanded = expanded(quote! {
            #[rpc(shard_by = key)]
            async fn scan(&self, cx: &Context, q: Request<'_, Q>, o: Sink<'_, O>) -> Result<R, E>;
        });
        assert!(expanded.contains("amethodwithstreamshasno`shard_by`"), "{expanded}");
    }
}
