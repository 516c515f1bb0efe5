//! System prompts, by the way an agent calls its tools.

use crate::call::Call;
use rolegraft_spans::python_json::dumps;
use rolegraft_trajectory::calls::{self, NativeCall};
use serde_json::{Value, json};

/// How an agent calls tools, and so what its prompt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `<tool_call>` blocks in the text (sierra-research's data as microsoft/Simia-Agent-Training@ea77d9d trains on it).
    Hermes,
    /// The chat API's own tool calls: upstream's `tool-calling` strategy.
    Native,
    /// `Thought:` and `Action:` in the text: upstream's `react` strategy.
    React,
    /// `Action:` alone: upstream's `act` strategy.
    Act,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Hermes, Self::Native, Self::React, Self::Act];

    /// The name in files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::Native => "native",
            Self::React => "react",
            Self::Act => "act",
        }
    }
    /// The reply format that reads it.
    #[must_use]
    pub fn format(self) -> &'static str {
        match self {
            Self::Act => "react",
            other => other.as_str(),
        }
    }

    /// An agent's reply that makes a call, its `number`th.
    #[must_use]
    pub fn write(self, call: &Call, number: usize) -> String {
        let arguments = Value::Object(call.kwargs.clone());
        if self == Self::Native {
            let native =
                NativeCall { id: format!("call_{number}"), name: call.name.clone(), arguments: dumps(&arguments) };
            return calls::write("", &[native]);
        }
        let action = dumps(&json!({"name": call.name, "arguments": arguments}));
        match self {
            Self::React => format!("Thought:\nThis is the next step.\nAction:\n{action}"),
            Self::Act => format!("Action:\n{action}"),
            _ => format!("<tool_call>\n{action}\n</tool_call>"),
        }
    }
    /// An agent's reply that speaks to the user.
    #[must_use]
    pub fn say(self, text: &str) -> String {
        match self {
            Self::Hermes | Self::Native => text.to_owned(),
            Self::React | Self::Act => {
                let kwargs = [("content".to_owned(), text.into())].into_iter().collect();
                self.write(&Call { name: "respond".into(), kwargs }, 0)
            }
        }
    }

    /// The system prompt for a policy and tools.
    #[must_use]
    pub fn system(self, wiki: &str, tools: &[Value]) -> String {
        match self {
            Self::Native => wiki.to_owned(),
            Self::Hermes => hermes(wiki, tools),
            Self::React | Self::Act => {
                let tools = dumps(&Value::Array(tools.to_vec()));
                let instruction = if self == Self::React { react() } else { act() };
                format!("{wiki}\n#Available tools\n{tools}{instruction}")
            }
        }
    }
}

/// Simia_SFT/Tau2/replace_system_prompt_Hermes.py.
fn hermes(wiki: &str, tools: &[Value]) -> String {
    let tools: Vec<String> = tools.iter().map(dumps).collect();
    format!(
        "<instructions>\nYou are a customer service agent that helps the user according to the <policy> provided below.\n\
         In each turn you can either:\n- Send a message to the user.\n- Make a tool call.\nYou cannot do both at the same time.\n\n\
         Try to be helpful and always follow the policy. Always make sure you generate valid JSON only.\n</instructions>\n\
         <policy>\n{}\n</policy>\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\n\
         For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML \
         tags:\n<tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        wiki.trim_end(),
        tools.join("\n")
    )
}

/// The example that both instructions share.
const WEATHER: &str = r#"{
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "The city and state, e.g. San Francisco, CA",
                },
                "format": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "description": "The temperature unit to use. Infer this from the users location.",
                },
            },
            "required": ["location", "format"],
        },
    }
}"#;
const ACTION: &str = r#"{"name": <The name of the action>, "arguments": <The arguments to the action in json format>}"#;
const CALL: &str =
    r#"{"name": "get_current_weather", "arguments": {"location": "San Francisco, CA", "format": "fahrenheit"}}"#;
const ANSWER: &str = r#"{"name": respond, "arguments": {"content": "The current weather of San Francisco is 70F."}}"#;
const ASKED: &str = "For example, if the user says \"I want to know the current weather of San Francisco\", and there is such \
                     a tool available";

/// sierra-research/tau-bench@59a200c:tau_bench/agents/chat_react_agent.py, `REACT_INSTRUCTION`.
fn react() -> String {
    format!(
        "\n# Instruction\nYou need to act as an agent that use the above tools to help the user according to the above policy.\n\n\
         At each step, your generation should have exactly the following format:\nThought:\n<A single line of reasoning to \
         process the context and inform the decision making. Do not include extra lines.>\nAction:\n{ACTION}\n\n\
         The Action will be parsed, so it must be valid JSON.\n\nYou should not use made-up or placeholder arguments.\n\n\
         {ASKED}\n{WEATHER}\n\nYour response can be like this:\nThought:\nSince the user asks for the weather of San Francisco \
         in USA, the unit should be in fahrenheit. I can query get_current_weather to get the weather.\nAction:\n{CALL}\n\n\
         And if the tool returns \"70F\", your response can be:\nThought:\nI can answer the user now.\nAction:\n{ANSWER}\n\n\
         Try to be helpful and always follow the policy.\n"
    )
}

/// The same file's `ACT_INSTRUCTION`.
fn act() -> String {
    format!(
        "\n# Instruction\nYou need to act as an agent that use the above tools to help the user according to the above policy.\n\n\
         At each step, your generation should have exactly the following format:\n\nAction:\n{ACTION}\n\n\
         You should not use made-up or placeholder arguments.\n\nThe Action will be parsed, so it must be valid JSON.\n\n\
         {ASKED}\n```json\n{WEATHER}\n```\n\nYour response can be like this:\nAction:\n{CALL}\n\nAnd if the tool returns \"70F\", \
         your response can be:\nAction:\n{ANSWER}\n\nTry to be helpful and always follow the policy. Always make sure you generate \
         valid JSON only.\n"
    )
}

/// tau_bench/envs/user.py, the system prompts of `LLMUserSimulationEnv` and `ReactUserSimulationEnv`.
pub(crate) fn user(thinks: bool, instruction: &str) -> String {
    let (first, stop, last) = if thinks {
        (
            "- First, generate a Thought about what to do next (this message will not be sent to the agent).\n- Then, generate a \
             one line User Response to simulate the user's message (this message will be sent to the agent).",
            "as the User Response",
            "\n\nFormat:\n\nThought:\n<the thought>\n\nUser Response:\n<the user response (this will be parsed and sent to the \
             agent)>",
        )
    } else {
        ("- Just generate one line at a time to simulate the user's message.", "as a standalone message", "")
    };
    format!(
        "You are a user interacting with an agent.\n\nInstruction: {instruction}\n\nRules:\n{first}\n\
         - Do not give away all the instruction at once. Only provide the information that is necessary for the current step.\n\
         - Do not hallucinate information that is not provided in the instruction. For example, if the agent asks for the \
         order id but it is not mentioned in the instruction, do not make up an order id, just say you do not remember or have \
         it.\n\
         - If the instruction goal is satisified, generate '###STOP###' {stop} without anything else to end the conversation.\n\
         - Do not repeat the exact instruction in the conversation. Instead, use your own words to convey the same information.\n\
         - Try to make the conversation as natural as possible, and stick to the personalities in the instruction.{last}"
    )
}

/// The same file's `verify`.
pub(crate) fn verify(transcript: &str, response: &str) -> String {
    format!(
        "You are a supervisor of the Agent in the conversation. You are given a Transcript of a conversation between a Customer \
         and an Agent. The Customer has generated a Response, and you need to verify if it is satisfactory (true) or not \
         (false).\n{PARSED}# Transcript:\n{transcript}\n\n# Response:\n{response}\n\n-----\n\nClassification:"
    )
}

/// The same file's `reflect`.
pub(crate) fn reflect(transcript: &str, response: &str) -> String {
    format!(
        "You are a supervisor of the Agent in the conversation. You are given a Transcript of a conversation between a \
         (simulated) Customer and an Agent. The Customer generated a Response that was marked as unsatisfactory by you.\n\
         You need to generate a Reflection on what went wrong in the conversation, and propose a new Response that should fix \
         the issues.\n{PARSED}# Transcript:\n{transcript}\n\n# Response:\n{response}\n\n# Format:\n\nReflection:\n\
         <the reflection>\n\nResponse:\n<the response (this will be parsed and sent to the agent)>"
    )
}

const PARSED: &str =
    "Your answer will be parsed, so do not include any other text than the classification (true or false).\n    \n";

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// Digests of upstream's own strings: a word that differs is another prompt.
    #[test]
    fn prompts_are_upstreams() {
        let digest = |text: &str| format!("{:x}", Sha256::digest(text));
        assert_eq!(digest(&react()), "55c63f60091612c58abd959389d9d7c6b3602bc7044daba71bd99ee176205297");
        assert_eq!(digest(&act()), "34dc702b2b9f7dc24c431cb0a83fc136d6d7812671769edbbdf51bdd4a9dd06e");
        for (text, expected) in [
            (user(false, "INS"), "b6c078e9daddf03b2180d4bc085088ebb4838691d5735376186dab5ccb215bd5"),
            (user(true, "INS"), "075f2d4d3f67b7b954155d2b79ee4bf1a4150f33ab1d7dfc0a66cca9c1dc98ae"),
            (
                verify("System: S\nCustomer: U\nAgent: A", "RESP"),
                "d2604793e3e08fd6be76f439ec2b05dde7846d188b5d1abab549c0263d0e9651",
            ),
            (
                reflect("System: S\nCustomer: U\nAgent: A", "RESP"),
                "3b8570a380de5704f3075ce7c38ffe5384690def7a860aba992e543a8eab4e8c",
            ),
        ] {
            assert_eq!(digest(&text), expected, "{text}");
        }
    }
}
