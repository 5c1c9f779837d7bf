import com.mpush.api.Logger;

/** Writes the client's log to standard error, where the harness keeps it. */
final class StandardErrorLogger implements Logger {
    private volatile boolean enabled = true;

    @Override
    public void enable(boolean enabled) {
        this.enabled = enabled;
    }

    @Override
    public void d(String text, Object... arguments) {
        write("D", text, arguments);
    }

    @Override
    public void i(String text, Object... arguments) {
        write("I", text, arguments);
    }

    @Override
    public void w(String text, Object... arguments) {
        write("W", text, arguments);
    }

    @Override
    public void e(Throwable problem, String text, Object... arguments) {
        write("E", text, arguments);
        if (problem != null) {
            problem.printStackTrace();
        }
    }

    private void write(String level, String text, Object... arguments) {
        if (enabled) {
            System.err.println(level + " " + String.format(text, arguments));
        }
    }
}
