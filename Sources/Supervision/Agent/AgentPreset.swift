import Glibc

/// How one agent program is run, read, resumed and stopped. The presets are data: no code knows an agent by name.
package struct AgentPreset: Sendable, Equatable {
    /// The form of the lines on its standard output.
    package enum Dialect: String, Sendable { case opencode, claude, codex, gemini, plainText }

    package struct Launch: Sendable, Equatable {
        /// The program's major version that it's for; nil: any.
        package var major: Int?
        /// With `{model} {workdir} {prompt} {prompt_file} {session} {title}` to fill in.
        package var arguments: [String]
        /// To go on in a session; empty where the agent can't.
        package var resume: [String]
    }

    package var name: String
    package var launches: [Launch]
    package var versionProbe: [String] = []
    package var promptChannel: WorkOrder.PromptChannel
    /// Environment that the agent needs; `{home}` and `{prompt_file}` are filled in.
    package var environment: [String: String] = [:]
    package var dialect: Dialect
    /// Whether it wants `claude-x` where others say `anthropic/claude-x`.
    package var wantsBareModel = false
    package var firstCancelSignal: Int32 = 0
    package var installHint: String

    /// Nil for a name that isn't a preset.
    package static func named(_ name: String) -> AgentPreset? { all.first { $0.name == name } }

    package static let all: [AgentPreset] = [opencode, claude, codex, aider, gemini]

    private static let opencode = AgentPreset(
        name: "opencode",
        launches: [
            launch(
                2, ["opencode", "run", "--standalone", "--format", "json", "--auto", "-m", "{model}"],
                ["--session", "{session}"]),
            launch(
                1,
                [
                    "opencode", "run", "--format", "json", "--auto", "--dir", "{workdir}", "--title", "{title}", "-m",
                    "{model}",
                ],
                ["--session", "{session}"]),
        ],
        versionProbe: ["opencode", "--version"], promptChannel: .standardInput,
        environment: [
            "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        ],
        dialect: .opencode, firstCancelSignal: SIGINT,
        installHint: "Install it, for example with: npm install -g opencode-ai")

    private static let claude = AgentPreset(
        name: "claude",
        launches: [
            launch(
                nil,
                [
                    "claude", "-p", "--output-format", "stream-json", "--verbose", "--model", "{model}",
                    "--permission-mode", "bypassPermissions", "--max-turns", "200",
                ], ["--resume", "{session}"])
        ],
        promptChannel: .standardInput,
        environment: ["CLAUDE_CONFIG_DIR": "{home}/.claude", "DISABLE_AUTOUPDATER": "1"],
        dialect: .claude, wantsBareModel: true,
        installHint: "Install it, for example with: npm install -g @anthropic-ai/claude-code")

    private static let codex = AgentPreset(
        name: "codex",
        launches: [
            Launch(
                arguments: [
                    "codex", "exec", "--json", "-C", "{workdir}", "-m", "{model}",
                    "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check", "-",
                ],
                resume: [
                    "codex", "exec", "resume", "--json", "-m", "{model}", "--dangerously-bypass-approvals-and-sandbox",
                    "--skip-git-repo-check", "{session}", "-",
                ])
        ],
        promptChannel: .standardInput, environment: ["CODEX_HOME": "{home}/.codex"], dialect: .codex,
        wantsBareModel: true,
        installHint: "Install it, for example with: npm install -g @openai/codex")

    private static let aider = AgentPreset(
        name: "aider",
        launches: [
            launch(
                nil,
                [
                    "aider", "--model", "{model}", "--message-file", "{prompt_file}", "--yes-always", "--no-pretty",
                    "--no-stream", "--no-check-update", "--no-analytics",
                ])
        ],
        promptChannel: .file, dialect: .plainText,
        installHint: "Install it, for example with: pipx install aider-chat")

    private static let gemini = AgentPreset(
        name: "gemini",
        launches: [
            launch(
                nil,
                [
                    "gemini", "-m", "{model}", "--approval-mode=yolo", "--skip-trust", "--output-format", "stream-json",
                    "-p", "{prompt}",
                ])
        ],
        promptChannel: .argument, dialect: .gemini, wantsBareModel: true,
        installHint: "Install it, for example with: npm install -g @google/gemini-cli")

    private static func launch(_ major: Int?, _ arguments: [String], _ resume: [String] = []) -> Launch {
        Launch(major: major, arguments: arguments, resume: resume.isEmpty ? [] : arguments + resume)
    }

    /// An agent that isn't known: its prompt goes where its arguments have a place for it, else to standard input.
    package static func custom(_ command: [String]) -> AgentPreset {
        let channel: WorkOrder.PromptChannel =
            if command.contains(where: { $0.contains("{prompt}") }) {
                .argument
            } else if command.contains(where: { $0.contains("{prompt_file}") }) {
                .file
            } else { .standardInput }
        return AgentPreset(
            name: "custom", launches: [launch(nil, command)], promptChannel: channel, dialect: .plainText,
            installHint: "Install it, or correct agent.command in worker.json.")
    }

    /// The preset with a command of the user's in its place: how it's read, stopped and (by arguments added at the end)
    /// resumed stays.
    package func replacingCommand(_ command: [String]) -> AgentPreset {
        var preset = self
        preset.versionProbe = []
        let model = launches[0]
        let addsAtEnd = model.resume.starts(with: model.arguments)
        preset.launches = [
            AgentPreset.launch(nil, command, addsAtEnd ? Array(model.resume.dropFirst(model.arguments.count)) : [])
        ]
        let channel = AgentPreset.custom(command).promptChannel
        if channel != .standardInput { preset.promptChannel = channel }
        return preset
    }
}

extension AgentPreset {
    /// What the places in the arguments are filled with.
    package struct Values: Sendable {
        package var model = ""
        package var workdir = ""
        package var prompt = ""
        package var promptFile = ""
        package var session: String?
        package var title = ""
        package var home = ""

        package init() {}

        /// Filled in at once, so that what stands in a value is never taken for a place.
        func fill(_ text: String) -> String {
            guard text.contains("{") else { return text }
            let places = [
                "model": model, "workdir": workdir, "prompt": prompt, "prompt_file": promptFile,
                "session": session ?? "",
                "title": title, "home": home,
            ]
            var result = ""
            var rest = text[...]
            while let open = rest.firstIndex(of: "{") {
                result += rest[..<open]
                let inner = rest[rest.index(after: open)...]
                if let close = inner.firstIndex(of: "}"), let value = places[String(inner[..<close])] {
                    result += value
                    rest = inner[inner.index(after: close)...]
                } else {
                    result += "{"
                    rest = inner
                }
            }
            return result + rest
        }
    }

    /// The model's name as this agent wants it.
    package func modelName(_ model: String) -> String {
        guard wantsBareModel, let slash = model.firstIndex(of: "/") else { return model }
        return String(model[model.index(after: slash)...])
    }

    /// Whether it can go on in a session.
    package var canResume: Bool { launches.contains { !$0.resume.isEmpty } }

    /// The launches with their places filled in, those for a session when there is one.
    package func filledLaunches(_ values: Values) -> [WorkOrder.Launch] {
        launches.map { launch in
            let resumes = values.session != nil && !launch.resume.isEmpty
            return WorkOrder.Launch(
                major: launch.major, arguments: (resumes ? launch.resume : launch.arguments).map(values.fill))
        }
    }

    package func filledEnvironment(_ values: Values) -> [String: String] { environment.mapValues(values.fill) }
}
