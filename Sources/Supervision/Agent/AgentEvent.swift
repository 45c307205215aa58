import FoundationEssentials

/// What one line of an agent's JSON output says, in the terms of all agents.
package enum AgentEvent: Sendable, Equatable {
    case session(String)
    /// The model's own words.
    case text(String)
    /// A tool was called; `identifier` pairs it with its result.
    case toolCall(identifier: String, command: String)
    case toolResult(identifier: String, succeeded: Bool)
    /// Used since the last such event.
    case usage(Usage)
    /// Used in all; it stands for what was told before.
    case totalUsage(Usage)
    case error(kind: String, message: String, status: Int?)
    /// The agent's own closing word.
    case result(succeeded: Bool, message: String)

    /// A longer line isn't read for events.
    package static let maxLineBytes = 256 * 1024

    /// The events of a line; none for one that isn't an event.
    package static func events(in line: some Collection<UInt8>, dialect: AgentPreset.Dialect) -> [AgentEvent] {
        guard dialect != .plainText, line.first == UInt8(ascii: "{"), line.count <= maxLineBytes,
            let message = try? JSONDecoder().decode(AgentMessage.self, from: Data(line))
        else { return [] }
        switch dialect {
        case .opencode: return opencode(message)
        case .claude: return claude(message)
        case .codex: return codex(message)
        case .gemini: return gemini(message)
        case .plainText: return []
        }
    }
}

// MARK: - Dialects

extension AgentEvent {
    private static func opencode(_ message: AgentMessage) -> [AgentEvent] {
        var events = message.sessionID.map { [AgentEvent.session($0)] } ?? []
        let part = message.part
        switch message.type {
        case "text": if let text = part?.text { events.append(.text(text)) }
        case "tool_use":
            let identifier = part?.callID ?? ""
            events.append(.toolCall(identifier: identifier, command: part?.state?.input?.command ?? ""))
            events.append(.toolResult(identifier: identifier, succeeded: part?.state?.status == "completed"))
        case "step_finish":
            var usage = part?.tokens?.usage ?? Usage()
            usage.costUSD = part?.cost
            events.append(.usage(usage))
        case "error": events.append(failure(message.error))
        default: break
        }
        return events
    }

    private static func claude(_ message: AgentMessage) -> [AgentEvent] {
        var events = message.sessionID.map { [AgentEvent.session($0)] } ?? []
        switch message.type {
        case "assistant", "user":
            for block in message.message?.content ?? [] {
                switch block.type {
                case "text": if message.type == "assistant", let text = block.text { events.append(.text(text)) }
                case "tool_use":
                    events.append(.toolCall(identifier: block.id ?? "", command: block.input?.command ?? ""))
                case "tool_result":
                    events.append(.toolResult(identifier: block.toolUseID ?? "", succeeded: block.isError != true))
                default: break
                }
            }
        case "result":
            var usage = message.usage?.usage ?? Usage()
            usage.costUSD = message.totalCostUSD
            events.append(.totalUsage(usage))
            let words = message.result?.text ?? message.subtype ?? ""
            if message.isError == true {
                events.append(.error(kind: message.subtype ?? "", message: words, status: message.apiErrorStatus))
            }
            events.append(.result(succeeded: message.isError != true && message.subtype == "success", message: words))
        default: break
        }
        return events
    }

    private static func codex(_ message: AgentMessage) -> [AgentEvent] {
        switch message.type {
        case "thread.started": return message.threadID.map { [.session($0)] } ?? []
        case "turn.completed": return message.usage.map { [.usage($0.usage)] } ?? []
        case "turn.failed":
            return [failure(message.error), .result(succeeded: false, message: message.error?.words ?? "")]
        case "item.completed":
            guard let item = message.item else { return [] }
            if item.type == "agent_message" { return item.text.map { [.text($0)] } ?? [] }
            guard item.type == "command_execution", let command = item.command else { return [] }
            let identifier = item.id ?? ""
            return [
                .toolCall(identifier: identifier, command: command),
                .toolResult(identifier: identifier, succeeded: item.exitCode == 0),
            ]
        default: return []
        }
    }

    private static func gemini(_ message: AgentMessage) -> [AgentEvent] {
        switch message.type {
        case "init": return message.sessionID.map { [.session($0)] } ?? []
        case "message":
            return message.role == "assistant" ? (message.content.map { [.text($0)] } ?? []) : []
        case "tool_use":
            return [.toolCall(identifier: message.toolID ?? "", command: message.parameters?.command ?? "")]
        case "tool_result":
            return [.toolResult(identifier: message.toolID ?? "", succeeded: message.status == "success")]
        case "error": return [.error(kind: message.severity ?? "", message: message.text ?? "", status: nil)]
        case "result":
            let usage = message.stats.map { [AgentEvent.totalUsage($0.usage)] } ?? []
            let failures = message.error.map { [failure($0)] } ?? []
            return usage + failures + [
                .result(succeeded: message.status == "success", message: message.error?.words ?? "")
            ]
        default: return []
        }
    }

    private static func failure(_ error: AgentMessage.Failure?) -> AgentEvent {
        .error(kind: error?.name ?? error?.type ?? "", message: error?.words ?? "", status: error?.data?.statusCode)
    }
}
