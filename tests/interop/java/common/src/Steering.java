import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UnsupportedEncodingException;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * How a test steers a driver: one order a line on standard input, one event a line on
 * standard output, both written as the query of a URL ("order=push&amp;id=7&amp;user=alice").
 *
 * A driver ends with its standard input, so that no process outlives the test that
 * started it. What the original prints goes to standard error.
 */
final class Steering {
    interface Orders {
        void carryOut(Map<String, String> order) throws Exception;
    }

    private final PrintStream out;

    Steering() {
        out = System.out;
        System.setOut(System.err);
    }

    /** Tells the test of something: names and values in turn; null values are left out. */
    void tell(String event, Object... namesAndValues) {
        StringBuilder line = new StringBuilder("event=").append(encode(event));
        for (int i = 0; i < namesAndValues.length; i += 2) {
            Object value = namesAndValues[i + 1];
            if (value != null) {
                line.append('&').append(namesAndValues[i]).append('=');
                line.append(encode(value.toString()));
            }
        }
        synchronized (out) {
            out.println(line);
            out.flush();
        }
    }

    /** Carries out orders until the input ends or says "order=exit". */
    void follow(Orders orders) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, String> order = parse(line);
            if ("exit".equals(order.get("order"))) {
                return;
            }
            try {
                orders.carryOut(order);
            } catch (Exception e) {
                e.printStackTrace();
                tell("error", "order", order.get("order"), "id", order.get("id"), "problem", e);
            }
        }
    }

    private static Map<String, String> parse(String line) throws UnsupportedEncodingException {
        Map<String, String> order = new LinkedHashMap<>();
        for (String item : line.split("&")) {
            int equals = item.indexOf('=');
            if (equals > 0) {
                order.put(item.substring(0, equals),
                        URLDecoder.decode(item.substring(equals + 1), "UTF-8"));
            }
        }
        return order;
    }

    private static String encode(String text) {
        try {
            return URLEncoder.encode(text, "UTF-8");
        } catch (UnsupportedEncodingException e) {
            throw new AssertionError(e);
        }
    }
}
