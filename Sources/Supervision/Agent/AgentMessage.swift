/// The parts of the agents' JSON lines that are read, all of them optional: a line of another form has none of them.
struct AgentMessage: Decodable {
    var type: String
    var subtype: String?
    var sessionID: String?
    var threadID: String?
    var toolID: String?
    var part: Part?
    var message: Message?
    /// A gemini message's words, or an error's.
    var content: String?
    var text: String?
    var role: String?
    var status: String?
    var severity: String?
    var isError: Bool?
    var apiErrorStatus: Int?
    var result: Words?
    var usage: Tokens?
    var stats: Tokens?
    var totalCostUSD: Double?
    var error: Failure?
    var item: Item?
    var parameters: ToolInput?

    private enum CodingKeys: String, CodingKey {
        case type, subtype, part, message, content, role, status, severity, result, usage, stats, error, item,
            parameters
        case sessionID, session_id, thread_id, tool_id, is_error, total_cost_usd, api_error_status
    }

    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        type = try values.decode(String.self, forKey: .type)
        func read<Value: Decodable>(_ key: CodingKeys, as type: Value.Type = Value.self) -> Value? {
            try? values.decodeIfPresent(type, forKey: key)
        }
        subtype = read(.subtype)
        sessionID = read(.sessionID) ?? read(.session_id)
        threadID = read(.thread_id)
        toolID = read(.tool_id)
        part = read(.part)
        message = read(.message)
        text = read(.message)
        content = read(.content)
        role = read(.role)
        status = read(.status)
        severity = read(.severity)
        isError = read(.is_error)
        apiErrorStatus = read(.api_error_status)
        result = read(.result)
        usage = read(.usage)
        stats = read(.stats)
        totalCostUSD = read(.total_cost_usd)
        error = read(.error)
        item = read(.item)
        parameters = read(.parameters)
    }
}

extension AgentMessage {
    struct ToolInput: Decodable { var command: String? }

    /// A string, where others may put something else.
    struct Words: Decodable {
        var text: String?
        init(from decoder: any Decoder) throws { text = try? decoder.singleValueContainer().decode(String.self) }
    }

    /// A part of opencode's.
    struct Part: Decodable {
        struct State: Decodable {
            var status: String?
            var input: ToolInput?
        }
        var text: String?
        var callID: String?
        var state: State?
        var cost: Double?
        var tokens: Tokens?
    }

    /// A message of claude's.
    struct Message: Decodable {
        struct Block: Decodable {
            var type: String
            var text: String?
            var id: String?
            var input: ToolInput?
            var toolUseID: String?
            var isError: Bool?
            enum CodingKeys: String, CodingKey {
                case type, text, id, input
                case toolUseID = "tool_use_id"
                case isError = "is_error"
            }
        }
        var content: [Block]?
    }

    /// An item of codex's.
    struct Item: Decodable {
        var type: String?
        var id: String?
        var text: String?
        var command: String?
        var exitCode: Int?
        enum CodingKeys: String, CodingKey {
            case type, id, text, command
            case exitCode = "exit_code"
        }
    }

    struct Failure: Decodable {
        struct Details: Decodable {
            var message: String?
            var statusCode: Int?
        }
        var name: String?
        var type: String?
        var message: String?
        var data: Details?

        var words: String { message ?? data?.message ?? name ?? type ?? "" }
    }

    /// Token counts under the names of all agents.
    struct Tokens: Decodable {
        struct Cache: Decodable {
            var read: Int?
            var write: Int?
        }
        var input: Int?
        var output: Int?
        var cache: Cache?
        var input_tokens: Int?
        var output_tokens: Int?
        var cache_read_input_tokens: Int?
        var cache_creation_input_tokens: Int?
        var cached_input_tokens: Int?

        var usage: Usage {
            var usage = Usage()
            usage.inputTokens = input ?? input_tokens ?? 0
            usage.outputTokens = output ?? output_tokens ?? 0
            usage.cacheReadTokens = cache?.read ?? cache_read_input_tokens ?? cached_input_tokens ?? 0
            usage.cacheWriteTokens = cache?.write ?? cache_creation_input_tokens ?? 0
            return usage
        }
    }
}
